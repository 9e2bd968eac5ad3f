"""The package as it is deployed: every module side by side in one folder, under a name that nothing else has."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.glue.deploy import ARTIFACTS, Pipeline, deploy, package_files
from local.glue.service import run_job
from local.services.processes import ServiceError
from local.terraform import Terraform
from tests.conftest import EXECUTORS_CONF, NUMBERS, ROOT

# Each module by its name in Python, and the file it is deployed as.
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): name
    for name, file in package_files().items()
}
IMPORTED = "{name: module.__file__ for name, module in sys.modules.items() if name.partition('.')[0] == 'overlay'}"


def test_each_module_has_a_name_of_its_own():
    assert sorted(package_files().values()) == sorted((ROOT / "overlay").rglob("*.py"))
    assert MODULES["overlay"] == "overlay.py"
    assert MODULES["overlay.source"] == "source.py"


@pytest.mark.parametrize("twin", ["source/errors.py", "errors/__init__.py", "glue_job.py"])
def test_two_files_of_one_name_are_refused(tmp_path, twin):
    for name in ("errors.py", twin):
        file = tmp_path / "overlay" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with pytest.raises(ServiceError, match=r"Glue would lay .*/overlay/.*\.py over .*: rename one\.$"):
        package_files(tmp_path)


def test_no_module_hides_one_of_python_or_of_glue():
    """The folder comes before both on the path; what Glue ships is installed here (requirements/glue-5.0.txt)."""
    foreign = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
    assert {"json", "boto3", "awsglue", "pyspark", "pyarrow", "urllib3"} <= foreign
    assert {Path(name).stem for name in package_files()} & foreign == set()


def test_every_module_is_imported_from_the_folder_it_is_deployed_to(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for name, file in package_files().items():
        (flat / name).write_bytes(file.read_bytes())
    script = f"import importlib, json, sys\nfor name in {list(MODULES)}: importlib.import_module(name)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}print(json.dumps([sys.path, {IMPORTED}]))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(flat)},
        stdout=subprocess.PIPE,
        check=True,
    )
    path, imported = json.loads(done.stdout)
    assert str(ROOT) not in path
    assert imported == {name: str(flat / file) for name, file in MODULES.items()}


def test_terraform_deploys_the_same_files_under_the_same_names(terraform, tmp_path):
    copy = Terraform(tmp_path, {})
    copy.init()
    console = copy.start("console")
    printed, _ = console.communicate(b"jsonencode(local.code)\n", timeout=60)
    assert json.loads(json.loads(printed)) == {
        "glue_job.py": ["glue_job.py"],
        **{name: [str(file.relative_to(ROOT))] for name, file in package_files().items()},
    }


def deploy_script(aws, database, script: Path) -> str:
    """Deploys a script in the place of glue_job.py, and with the package `overlay.csv_text.where`; the job's name."""
    pipeline = Pipeline(f"package{next(NUMBERS)}", "t", "lake", "in/a.json", "lake", "out/a.csv")
    job = deploy(aws, database, pipeline, script)
    function = f"""

def where(_records):
    import importlib, os, sys, time
    for name in {list(MODULES)}:
        importlib.import_module(name)
    time.sleep(1)  # so that an executor does not get all
    yield os.getcwd(), {IMPORTED}
"""
    module = package_files()["csv_text.py"].read_bytes() + function.encode()
    aws.client("s3").put_object(Bucket=ARTIFACTS, Key="csv_text.py", Body=module)
    return job


def run(aws, job: str, folder: Path, *prefixes: str, conf: str = "", **environment: str) -> list[Any]:
    """Runs a job in the working copy, which the caller has on his path; what it printed behind each prefix."""
    log = folder / "log"
    variables = {**aws.environment(), "PYTHONPATH": str(ROOT), **environment}
    with log.open("wb") as output:
        status = run_job(job, {"--conf": conf} if conf else {}, environment=variables, output=output)
    lines = log.read_text().splitlines()
    assert status == 0, "\n".join(lines)
    return [json.loads(line.removeprefix(prefix)) for prefix in prefixes for line in lines if line.startswith(prefix)]


def deployed_to(folder: str) -> dict[str, str]:
    """Where each module is when all are in a folder."""
    return {name: str(Path(folder, file)) for name, file in MODULES.items()}


def test_the_driver_imports_what_was_deployed_not_the_working_copy(aws, database, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import json, overlay.csv_text\nprint('DRIVER', json.dumps(next(overlay.csv_text.where([]))))\n")
    [[folder, imported]] = run(aws, deploy_script(aws, database, script), tmp_path, "DRIVER ")
    assert not Path(folder).is_relative_to(ROOT)
    assert imported == deployed_to(f"{folder}/modules")


@pytest.mark.long
def test_executors_import_what_was_shipped_to_them(aws, database, tmp_path):
    """Functions are pickled by reference: each of two executors has the modules in the folder it works in."""
    script = tmp_path / "script.py"
    script.write_text(
        "import json, overlay.csv_text\n"
        "from pyspark import SparkContext\n"
        "batches = SparkContext.getOrCreate().parallelize(range(4), 4)\n"
        "for each in batches.mapPartitions(overlay.csv_text.where).collect(): print('EXECUTOR', json.dumps(each))\n"
    )
    # No task before both are there, or the first would get them all.
    both = "spark.scheduler.minRegisteredResourcesRatio=1 --conf spark.scheduler.maxRegisteredResourcesWaitingTime=120s"
    executors = run(
        aws,
        deploy_script(aws, database, script),
        tmp_path,
        "EXECUTOR ",
        conf=f"{EXECUTORS_CONF} --conf {both}",
        LOCAL_SPARK_MASTER="local-cluster[2,1,1024]",
        LOCAL_SPARK_MEMORY="1g",
    )
    assert {Path(folder).name for folder, _ in executors} == {"0", "1"}
    installed = importlib.metadata.distribution("pyspark").locate_file("pyspark")
    for folder, imported in executors:
        assert Path(folder).parent.parent.name == "work"
        assert not Path(folder).is_relative_to(str(installed))  # where nobody would clear it away
        assert {name: os.path.normpath(file) for name, file in imported.items()} == deployed_to(folder)
