"""Metrics of a run for CloudWatch: in go its stages and result, out goes one request. Nothing here fails a run."""

from overlay.aws import client, within
from overlay.limits import Limits
from overlay.report.result import Result, Stages

NAMESPACE = "RdsGlueS3Etl"
# Names of metrics, and of the counts behind them, which the run report has, too.
COUNT_METRICS = {
    "SourceRecords": "source_records",
    "MatchedRecords": "matched",
    "SourceOnlyRecords": "source_only",
    "FilledCells": "filled_cells",
    "UnmatchedRows": "unmatched",
    "SourceDuplicates": "source_duplicates",
    "TableDuplicates": "table_duplicates",
    "TableRows": "table_rows",
    "MissingIds": "missing_ids",
}


def put_metrics(job: str, progress: Stages, result: Result | None, limits: Limits) -> None:
    """Sends the metrics of a run to CloudWatch; without a result those of a failed one. Never raises.

    All in one request, which takes 1,000 metrics, so that a run has all of them or none.
    """
    data = [
        _metric(job, "Succeeded", int(result is not None), "Count"),
        _metric(job, "DurationSeconds", progress.seconds, "Seconds"),
    ]
    if result:
        counts = result.counts.as_dict()
        data += [_metric(job, metric, counts[name], "Count") for metric, name in COUNT_METRICS.items()]
        data.append(_metric(job, "OutputBytes", result.bytes, "Bytes"))
    for stage in progress.stages:
        data.append(_metric(job, "StageSeconds", stage["seconds"], "Seconds", Stage=stage["stage"]))

    def put() -> None:
        client("cloudwatch", limits.aws_brief).put_metric_data(Namespace=NAMESPACE, MetricData=data)

    within(limits.metrics_seconds, "sending metrics", put)


def _metric(job: str, name: str, value: float, unit: str, **dimensions: str) -> dict[str, object]:
    named = [{"Name": key, "Value": text} for key, text in {"Job": job, **dimensions}.items()]
    return {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": named}
