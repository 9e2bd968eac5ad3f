"""Every number that may be tuned, in one object that is passed in: a test passes another one instead of patching."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class AwsTimeouts:
    """How long a client of AWS waits, and how often it tries (botocore's standard mode)."""

    attempts: int = 7
    connect_seconds: float = 10
    read_seconds: float = 60


@dataclass(frozen=True)
class Limits:
    """The numbers of a run: times in seconds, sizes in bytes, counts as they are."""

    aws: AwsTimeouts = AwsTimeouts()  # for what a run needs
    # For what it can do without (report, metrics): one attempt.
    aws_brief: AwsTimeouts = AwsTimeouts(attempts=1, connect_seconds=3, read_seconds=5)

    connect_seconds: float = 10  # to the database
    socket_seconds: float = 600  # the longest silence of a statement at work (a COUNT over some 10^9 rows)
    lock_seconds: float = 300  # of LOCK TABLES and DDL, for which the default of MySQL waits a day and more
    client_seconds: float = 3600  # the server hangs up on a client that reads slower than this
    # Before asking again a database that was never reached (mostly a setting is wrong), and once it was reached (a
    # failover of RDS takes one to two minutes).
    first_waits: tuple[float, ...] = (1, 4)
    later_waits: tuple[float, ...] = (1, 5, 15, 30, 90)
    patience_seconds: float = 600  # after the first failure nothing is begun again
    fetch_rows: int = 10_000  # that a JDBC driver holds at a time
    fetch_bytes: int = 16 * MIB  # of rows that are fetched at a time, where rows are large
    waiting_bytes: int = 128 * MIB  # of the rows of a range that wait until the source is parsed
    connection_share: int = 4  # the part of the server's max_connections that is used: one in so many

    range_rows_min: int = 100_000  # of a range of the table, which is one connection
    range_rows_max: int = 2_000_000
    ranges_max: int = 256  # of the table
    estimates_max: int = 1_000  # EXPLAIN statements, of a few milliseconds each
    estimate_fan: int = 16  # into how many a range of keys is cut at a time
    counted_rows_min: int = 2_000_000  # a table with fewer rows is counted by one statement
    lookup_ids_max: int = 200_000  # which the driver writes into statements
    lookup_rows_min: int = 50_000  # a table with fewer rows is read faster than asked
    rows_per_lookup: int = 10  # finding a row by an index costs as much as reading this many in a row
    lookup_list: int = 900  # ids in an IN list; MariaDB turns 1,000 into a join (in_predicate_conversion_threshold)
    lookup_list_bytes: int = 64 * 1024  # of its text
    lists_per_lookup: int = 10  # IN lists in a statement, well below range_optimizer_max_mem_size
    unmatched_ids: int = 10  # that the report names
    differences_max: int = 10_000  # cells in the list of those that the source overrides
    differences_bytes_max: int = 64 * MIB  # of that list
    first_ids: int = 1_000  # read at first in search of those that the source lacks

    chunk_bytes: int = 4 * MIB  # of a range read from S3, and of the text that is parsed at a time
    process_bytes_min: int = 32 * MIB  # of JSON Lines that processes parse where Arrow cannot: each takes 1 s to start
    record_bytes_max: int = 64 * MIB  # of one record
    sniff_bytes: int = 64 * 1024  # read of an object to learn what it is
    range_bytes_min: int = 4 * MIB  # of an object that several parse
    range_bytes_max: int = 64 * MIB
    read_attempts: int = 5  # of a torn answer of S3; botocore repeats the others
    arrow_misses_max: int = 3  # chunks that turned out otherwise before Arrow's JSON reader is left alone

    part_bytes: int = 8 * MIB  # of a part of the output
    put_bytes_max: int = 8 * MIB  # of an object that is one PutObject
    part_bytes_min: int = 5 * MIB  # S3's, for every part but the last (S3 User Guide, multipart upload limits)
    parts_max: int = 10_000  # S3's
    uploads_at_a_time: int = 2  # parts on their way
    stale_upload_seconds: float = 8 * 60 * 60  # no upload takes longer: the default timeout of a Glue 5.0 job

    slack_attempts: int = 4  # to post a message, to Teams and a JSON webhook as well
    slack_seconds: float = 45  # for all of them, with the waits between
    slack_connect_seconds: float = 5  # for one of them
    slack_read_seconds: float = 10
    report_seconds: float = 8  # reading or writing the run report
    metrics_seconds: float = 8  # sending metrics
    report_bytes_max: int = 16 * MIB  # of the report of the run before
    progress_seconds: float = 60  # between two lines about a stage
    stop_seconds: float = 6  # for a run that is stopped to end its work, and for its message


LIMITS = Limits()  # of a run, unless a test says otherwise
