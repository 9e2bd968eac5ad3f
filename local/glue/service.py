"""Runs a Glue job here as the Glue service would: definition, script, package and jars come from the AWS API."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shlex
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from local.glue.deploy import jar_path
from local.services.databases import MariaDB, PostgreSQL
from local.services.processes import LOOPBACK, start_process, stop_process

# Special parameters that Glue uses up itself (AWS Glue guide, "Using job parameters").
GLUES_OWN = frozenset(
    {
        "--additional-python-modules",
        "--class",
        "--conf",
        "--continuous-log-logGroup",
        "--extra-files",
        "--extra-jars",
        "--extra-py-files",
        "--job-language",
        "--scriptLocation",
        "--user-jars-first",
    }
)
# A run here is short: it ends before a thorough compiler and a parallel collector have paid for their start.
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
ARCHIVE = Path(sys.prefix) / "spark.jsa"  # of the jars in this environment; local.glue.archive makes it
SILENT_ARCHIVE = "-Xlog:cds=off -Xlog:cds+dynamic=off -Xlog:class+path=off"
# Spark takes `warn` for what pyspark starts, and says so, unless its gateway has a level of its own.
LOG_CONFIGURATION = """\
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


class RunnerError(RuntimeError):
    """The job cannot be started; the text says what to do."""


def run_job(
    job_name: str,
    overrides: Mapping[str, str],
    *,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | int | None = None,
) -> int:
    """Runs a job to its end.

    Args:
        job_name: A job that glue.create_job or Terraform made.
        overrides: Arguments that overlay the default ones, with their dashes (`--language`).
        environment: Further variables (AWS_ENDPOINT_URL, ...), for the runner and the job.
        output: Where the log goes, both streams; this process's own when None.

    Returns:
        0 when the job succeeded, else 1.

    Raises:
        RunnerError: there is no such job, or its script, a module or a jar cannot be read.
    """
    quick = {"LOCAL_SPARK_JAVA": quick_java(), "SPARK_LAUNCHER_OPTS": QUICK_JAVA}
    variables = {**quick, **os.environ, **(environment or {})}
    definition = read_definition(client("glue", variables), job_name)
    arguments = {**definition.get("DefaultArguments", {}), **overrides}
    if "AWS_ENDPOINT_URL" in variables:  # of AWS itself only Glue can take the role
        variables |= role_credentials(client("sts", variables), definition["Role"])
    s3 = client("s3", variables)
    with tempfile.TemporaryDirectory(prefix="glue-run-") as folder:
        home = Path(folder)
        script, modules = fetch_code(s3, definition["Command"], arguments, home)
        jars = [fetch(s3, jar, home) for jar in listed(arguments, "--extra-jars")]
        jars += glues_jars(definition.get("GlueVersion", "5.0"), variables)
        variables |= job_environment(home, modules, jars, arguments.get("--conf", ""), variables)
        command = [
            sys.executable,
            str(Path(__file__).with_name("bootstrap.py")),
            str(script),
            *script_arguments(job_name, arguments),
        ]
        return run_process(command, variables, home, definition.get("Timeout", 480) * 60, output)


def quick_java() -> str:
    """The options of a JVM of Spark that lives for seconds; it starts from the archive of classes if there is one."""
    return f"{QUICK_JAVA} {SILENT_ARCHIVE} -XX:SharedArchiveFile={ARCHIVE}" if ARCHIVE.is_file() else QUICK_JAVA


def glues_jars(glue_version: str, variables: Mapping[str, str]) -> list[Path]:
    """The JDBC drivers that this version of Glue has itself, as far as they are installed here."""
    servers = [PostgreSQL, MariaDB] if glue_version >= "6.0" else [PostgreSQL]
    jars = [jar_path(server, variables) for server in servers]
    return [jar for jar in jars if jar.is_file()]


def client(service: str, variables: Mapping[str, str]) -> Any:
    """A boto3 client as these environment variables describe it."""
    return boto3.client(
        service,
        endpoint_url=variables.get("AWS_ENDPOINT_URL"),
        region_name=variables.get("AWS_DEFAULT_REGION"),
        aws_access_key_id=variables.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=variables.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=variables.get("AWS_SESSION_TOKEN"),
    )


def role_credentials(sts: Any, role: str) -> dict[str, str]:
    """The environment variables of a run, which acts in the name of the job's role.

    Raises:
        RunnerError: the role cannot be taken.
    """
    try:
        credentials = sts.assume_role(RoleArn=role, RoleSessionName="GlueJobRunnerSession")["Credentials"]
    except (ClientError, BotoCoreError) as error:
        message = f"The job's role {role} cannot be taken: {error}"
        raise RunnerError(message) from error
    return {
        "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
        "AWS_SESSION_TOKEN": credentials["SessionToken"],
    }


def read_definition(glue: Any, job_name: str) -> dict[str, Any]:
    """The job as the Glue API has it.

    Raises:
        RunnerError: there is no such job, or the API cannot be reached.
    """
    try:
        return dict(glue.get_job(JobName=job_name)["Job"])
    except glue.exceptions.EntityNotFoundException:
        names = ", ".join(glue.list_jobs().get("JobNames", [])) or "none"
        message = f"There is no Glue job {job_name!r}. Jobs: {names}."
        raise RunnerError(message) from None
    except (ClientError, BotoCoreError) as error:
        message = f"The Glue API did not answer ({error}). Is AWS_ENDPOINT_URL set to the local services?"
        raise RunnerError(message) from error


def fetch(s3: Any, url: str, folder: Path) -> Path:
    """Downloads an object into a folder.

    Raises:
        RunnerError: it cannot be read.
    """
    parts = urlsplit(url)
    target = folder / Path(parts.path).name
    try:
        target.write_bytes(s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read())
    except (ClientError, BotoCoreError) as error:
        message = f"{url}, which the job definition names, cannot be read: {error}"
        raise RunnerError(message) from error
    return target


def listed(arguments: Mapping[str, str], name: str) -> list[str]:
    """The URLs of an argument that takes several, such as `--extra-py-files`."""
    return [url for url in arguments.get(name, "").split(",") if url]


def fetch_code(
    s3: Any, command: Mapping[str, str], arguments: Mapping[str, str], home: Path
) -> tuple[Path, list[Path]]:
    """Downloads a job's script, and its modules side by side into a folder that holds nothing else.

    Raises:
        RunnerError: one cannot be read.
    """
    script = fetch(s3, command["ScriptLocation"], home)
    folder = home / "modules"
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        return script, list(pool.map(lambda url: fetch(s3, url, folder), listed(arguments, "--extra-py-files")))


def job_environment(
    home: Path, modules: Sequence[Path], jars: Sequence[Path], conf: str, variables: Mapping[str, str]
) -> dict[str, str]:
    """The environment variables by which the job's process, its JVM and its workers find what was fetched.

    The modules are given twice, as on Glue. PYTHONPATH, in the place of the caller's, is for the driver, which imports
    them before there is a Spark context. `--py-files` is for the workers: Spark sends the files to each executor.

    Args:
        home: The folder of the run, where the process has to start: workers look into its folder first.
        modules: As `fetch_code` gives them.
        jars: For the class path.
        conf: Glue's `--conf`: `a=b --conf c=d`.
        variables: What the process is given beside these.
    """
    (home / "log4j2.properties").write_text(LOG_CONFIGURATION)
    spark = Path(str(importlib.metadata.distribution("pyspark").locate_file("pyspark")))
    if variables.get("LOCAL_SPARK_MASTER", "").startswith("local-cluster"):
        # Its executors work below SPARK_HOME, which is not to fill up: this one goes with the run.
        spark = shadow(spark, home / "spark")
    return {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": submit_arguments(home, modules, jars, conf, variables),
        "PYTHONPATH": str(home / "modules"),
        "PYTHONUNBUFFERED": "1",
        "SPARK_HOME": str(spark),
    }


def shadow(spark: Path, folder: Path) -> Path:
    """Makes a folder that is Spark's to a JVM, and whose `work` is its own; returns it."""
    folder.mkdir()
    for name in ("bin", "jars", "python"):
        (folder / name).symlink_to(spark / name)
    return folder


def script_arguments(job_name: str, arguments: Mapping[str, str]) -> list[str]:
    """What Glue puts behind the script's name."""
    run = {"--JOB_NAME": job_name, "--JOB_ID": f"j_{uuid.uuid4().hex}", "--JOB_RUN_ID": f"jr_{uuid.uuid4().hex}"}
    passed = {
        name: value
        for name, value in arguments.items()
        if name not in GLUES_OWN and not name.startswith("--enable-") and name not in run
    }
    return [token for pair in {**run, **passed}.items() for token in pair]


def submit_arguments(
    home: Path, modules: Sequence[Path], jars: Sequence[Path], conf: str, variables: Mapping[str, str]
) -> str:
    """The value of PYSPARK_SUBMIT_ARGS."""
    quick = variables.get("LOCAL_SPARK_JAVA", "")
    settings = [
        "spark.ui.enabled=false",
        "spark.ui.showConsoleProgress=false",
        f"spark.driver.host={LOOPBACK}",
        f"spark.driver.bindAddress={LOOPBACK}",
        f"spark.local.dir={home}",
        f"spark.sql.warehouse.dir={home}",
        "spark.executorEnv.PYTHONPATH=",  # the driver's, which would reach them on one machine alone
        f"spark.driver.extraJavaOptions=-Dlog4j2.configurationFile={home / 'log4j2.properties'} {quick}".rstrip(),
        *(item.strip() for item in conf.split("--conf") if item.strip()),
    ]
    arguments = [
        *("--master", variables.get("LOCAL_SPARK_MASTER", "local[*,4]")),
        *("--driver-memory", variables.get("LOCAL_SPARK_MEMORY", "2g")),
        *(("--jars", ",".join(map(str, jars))) if jars else ()),
        *(("--py-files", ",".join(map(str, modules))) if modules else ()),
        *(token for setting in settings for token in ("--conf", setting)),
        "pyspark-shell",
    ]
    return shlex.join(arguments)


def run_process(
    command: Sequence[str], variables: Mapping[str, str], home: Path, seconds: float, output: IO[bytes] | int | None
) -> int:
    """Runs the job's process; what it started ends with it, whatever happens here."""
    with ended(start_process(command, env=dict(variables), cwd=home, stdout=output, stderr=output)) as process:
        try:
            return int(process.wait(seconds) != 0)
        except subprocess.TimeoutExpired:
            print(f"The job ran into its timeout of {seconds / 60:g} minutes.", file=sys.stderr)  # noqa: T201
            return 1


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Ends a child, and what it has started (the JVM, Python workers), at the end of the block."""
    try:
        yield process
    finally:
        stop_process(process)
