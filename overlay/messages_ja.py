"""The failures of the job in Japanese, and the phrases in them.

Nothing goes in; out come dictionaries of `str.format` templates, with the same codes and fields as in `messages_en`.
"""

# What went wrong and what to check next, by the code of a JobError.
MESSAGES: dict[str, tuple[str, str]] = {
    "argument_invalid": (
        "ジョブ引数 --{name} の値 {value!r} は使えません。",
        "{expected} を、configs.json (terraform apply で反映) か実行時の引数に指定してください。",
    ),
    "argument_missing": (
        "ジョブ引数 --{name} がありません。",
        "terraform apply を実行すると configs.json から設定されます。または実行時の引数に追加してください。",
    ),
    "argument_unknown": (
        "ジョブ引数 --{name} は定義されていません{near}。",
        "使える引数: {arguments}",
    ),
    "arguments_conflict": (
        "ジョブ引数が互いに矛盾しています: {conflict}",
        "configs.json のどちらかを直して terraform apply を実行するか、実行時の引数を変更してください。",
    ),
    "secret_missing": (
        "Secrets Manager にシークレット {secret!r} がありません。",
        "terraform apply で作成するか、configs.json の secret_arn (--secret_name) を確認してください。",
    ),
    "secret_invalid": (
        "シークレット {secret!r} の内容が不正です ({problem})。",
        "{fields} を持つ JSON オブジェクトを保存してください (TF_VAR_credentials か Secrets Manager)。",
    ),
    "connection_missing": (
        "Glue 接続 {connection!r} がありません。",
        "terraform apply を実行すると configs.json の Database から作成されます (--connection_name)。",
    ),
    "connection_invalid": (
        "Glue 接続 {connection!r} の設定が不正です ({problem})。",
        "configs.json の Database (ca_uri、enforce_ssl、endpoint) を直して terraform apply を実行してください。",
    ),
    "access_denied": (
        "AWS が {resource} への {operation} を拒否しました。",
        "ジョブのロール (KMS は common_settings.json の kms_key_arns) と、バケットやキーのポリシーで許可してください。",
    ),
    "aws_failed": (
        "AWS の {operation} ({resource}) が失敗しました: {problem}",
        "ログを確認して、ジョブを再実行してください。",
    ),
    "source_missing": (
        "入力ファイル {url} がありません。",
        "configs.json の S3.source_bucket と S3.source_key (--source_key)、ファイルの到着を確認してください。",
    ),
    "source_is_folder": (
        "入力ファイル {url} はありませんが、{url}/ の下にオブジェクトがあります。",
        "フォルダー全体を読むには、configs.json の S3.source_key (--source_key) の末尾に / を付けてください。",
    ),
    "source_archived": (
        "{url} は S3 のアーカイブ用ストレージクラス (Glacier) にあり、読み取れません。",
        "オブジェクトを復元 (restore-object) するか、バケットのライフサイクルルールの対象から入力を外してください。",
    ),
    "source_changed": (
        "{url} が読み取り中に置き換えられました。",
        "アップロード完了後にジョブを再実行してください。",
    ),
    "source_empty": (
        "入力ファイル {url} が空です ({problem})。このまま出力を置き換えると中身が消えます。",
        "ファイルを作る側の処理を確認してください。",
    ),
    "source_malformed": (
        "{url} の JSON が不正です (レコード {record}、バイト位置 {offset}): {problem}",
        "ファイル (オブジェクトの配列、または 1 行 1 オブジェクト) を直して再実行してください。",
    ),
    "source_not_object": (
        "{url} のレコード {record} (バイト位置 {offset}) はオブジェクトではなく{kind}です。",
        "すべてのレコードを JSON オブジェクトにしてください。",
    ),
    "records_missing": (
        "{url} の {path!r} にレコードの配列がありません: {problem}",
        "configs.json の S3.records_at (--records_at) を、外側から順にドットでつないだ名前に直してください。",
    ),
    "key_missing_in_source": (
        "{url} のどのレコードにもキー列 {key!r} がありません{near}。",
        "見つかった列: {columns}。configs.json の key (--key)、配列を囲む形なら S3.records_at を設定してください。",
    ),
    "key_missing_in_table": (
        "テーブル {table} にキー列 {key!r} がありません{near}。",
        "見つかった列: {columns}。configs.json の Database.table_key (--table_key)、入力も同名なら key が必要です。",
    ),
    "column_missing": (
        "入力にもテーブルにも列 {name!r} がありません{near}。",
        "見つかった列: {columns}。configs.json の columns (--columns) を直してください。",
    ),
    "where_refused": (
        "テーブル {table} の条件 {where!r} をデータベースが受け付けません: {problem}",
        "configs.json の Database.table_where (--table_where) を、括弧と引用符の閉じた条件 1 つに直してください。",
    ),
    "table_missing": (
        "テーブル {table} がないか、ユーザー {user!r} に読み取り権限がありません{near}。",
        "configs.json の SecretsManager (db_name、table_name、schema_name) とユーザーの権限を確認してください。",
    ),
    "table_unreadable": (
        "テーブル {table} はありますが、ユーザー {user!r} が読み取れる列がありません。",
        "SELECT 権限を付与してください。ビューの場合は、元のテーブルと列が残っているか確認してください。",
    ),
    "login_refused": (
        "データベース {host} がユーザー {user!r} のログインを拒否しました。",
        "シークレット {secret!r} の username と password、TLS 必須なら Database.enforce_ssl を確認してください。",
    ),
    "account_refused": (
        "データベース {host} はユーザー {user!r} のアカウントを受け付けません: {problem}",
        "サーバーでアカウントのロックを解除するかパスワードを更新し (シークレットも)、ジョブを再実行してください。",
    ),
    "address_refused": (
        "データベース {host} はジョブの接続元アドレスからの接続を許可していません: {problem}",
        "接続のサブネットを許可してください: MySQL は user@host と FLUSH HOSTS、PostgreSQL は pg_hba.conf です。",
    ),
    "tls_refused": (
        "データベース {host} と TLS で接続できません: {problem}",
        "configs.json の Database.enforce_ssl (JDBC_ENFORCE_SSL) とサーバーの TLS の設定を確認してください。",
    ),
    "authentication_unsupported": (
        "データベース {host} が求める認証方式に JDBC ドライバーが対応していません: {problem}",
        "対応する認証方式に変えるか、Database.enforce_ssl を true にするか、新しいドライバーを使ってください。",
    ),
    "no_connection_left": (
        "データベース {host} の接続数が上限に達しています: {problem}",
        "時間を変えるか、configs.json の Database.max_connections を下げるか、サーバー側の上限を上げてください。",
    ),
    "database_unreachable": (
        "データベース {host} に接続できません。",
        "configs.json の Database.endpoint と port、サブネット、データベースのセキュリティグループを確認してください。",
    ),
    "certificate_refused": (
        "データベース {host} のサーバー証明書を検証できません: {problem}",
        "Database.ca_uri ({url}) に署名元の CA があるか、Database.endpoint が証明書の名前と合うかを確認してください。",
    ),
    "ca_invalid": (
        "CA バンドル {url} を使えません ({problem})。",
        "Database.ca_uri には CA 証明書 (PEM 形式) の S3 オブジェクトを指定してください。",
    ),
    "driver_missing": (
        "JDBC ドライバークラス {driver!r} が見つかりません。",
        "common_settings.json の connection.jdbc_driver で、class_name と jar_uri (--extra-jars) を合わせてください。",
    ),
    "driver_refuses_url": (
        "JDBC ドライバー {driver!r} は URL {url} を受け付けません。",
        "Database.dbtype と connection.jdbc_driver を合わせてください (Connector/J 3 には permitMysqlScheme も必要)。",
    ),
    "spark_unsupported": (
        "テーブルの読み取りに使う機能が、このバージョンの Spark にありません: {problem}",
        "Glue.glue_version を 5.0、5.1、6.0 のいずれかにしてください。",
    ),
    "value_too_large": (
        "{table} の列 {column!r} に、大きすぎて送れない値があります (テキストにすると max_allowed_packet を超えます)。",
        "設定値を大きくするか (バイト列は 16 進数で 2 倍の長さになります)、この列を除いたビューを読んでください。",
    ),
    "database_failed": (
        "データベース {host} でエラーが起きました: {problem}",
        "データベースのログを確認して再実行してください。",
    ),
    "destination_missing": (
        "出力先バケット {bucket!r} がありません。",
        "configs.json の S3.destination_bucket (--destination_bucket) を確認してください。",
    ),
    "not_encodable": (
        "{row}、列 {column!r}: 文字 {character!r} (U+{codepoint}) は {encoding} にありません。",
        "元データの文字を置き換えるか、configs.json の csv.encoding (--csv_encoding) を utf-8-sig にしてください。",
    ),
    "guard_tripped": (
        "ガードが出力 {output} の置き換えを止めました: {problem}。",
        "入力を確認してください。正しければ --guard off で 1 回実行するか、configs.json の guard を変更してください。",
    ),
    "rows_lost": (
        "入力 {expected} 件に対し出力が {written} 行になったため、出力を置き換えませんでした。",
        "実行中にデータが変わった可能性があります。再実行してください。",
    ),
    "output_unsure": (
        "{url} が置き換わったかどうか、S3 から応答がありませんでした ({problem})。",
        "前回か今回のどちらか完全なファイルがあります。更新時刻を確認するか、再実行してください。",
    ),
    "stopped": (
        "ジョブが停止されました (手動停止またはタイムアウト)。",
        "再実行してください。タイムアウトなら Glue.timeout_minutes か Glue.number_of_workers を増やしてください。",
    ),
    "unexpected": ("{problem}", "実行ログのスタックトレースを確認してください。"),
}

# Words among the details of a failure.
PHRASES: dict[str, str] = {
    "near": " ({name!r} の間違いではありませんか)",
    "one_character": "1 文字 (引用符と改行以外、タブは \\t)",
    "count": "整数 (1 から 99999)",
    "percent": "整数 (0 から 100)",
    "value": "文字列 (1 文字以上)",
    "object_key": "オブジェクト 1 つのキー (末尾は / 以外)",
    "placeholders": "波括弧を {{yyyy}}、{{mm}}、{{dd}}、{{hh}} だけに使ったキー",
    "date": "日付 (2026-11-01)、キーに {{hh}} があれば時も付けた日付 (2026-11-01T05)",
    "date_unused": "S3.source_key、S3.destination_file、一覧のキーに日付がないのに --date が {date} です",
    "zone": "IANA のタイムゾーン名 (Asia/Tokyo など。この環境にデータがあるもの: {count} 件)",
    "null_is_special": "csv.null (--csv_null) {null!r} に区切り文字、引用符または改行が含まれています",
    "option_not_encodable": "csv.{name} (--csv_{name}) {value!r} は {encoding} (csv.encoding) で書けません",
    "output_is_source": "S3.{name} (--{name}) {output} が入力 {source} を上書きするか、次回の入力に混ざります",
    "report_is_source": "実行レポート {report} が入力を上書きします",
    "list_is_output": "S3.{name} (--{name}) {key!r} が出力、実行レポート、別の一覧のいずれかと同じキーです",
    "schema_unused": "SecretsManager.schema_name {schema!r} は PostgreSQL 用ですが、接続は {scheme} です",
    "and": "{first}。また、{second}",
    "max_drop_percent": "前回の成功より {part} 件少ない ({whole} 件の {percent}、guard.max_drop_percent {limit})",
    "min_match_percent": "一致したレコードが {whole} 件中 {part} 件 ({percent}、guard.min_match_percent {limit})",
    "max_unmatched_percent": "テーブルのみが {whole} 行中 {part} 行 ({percent}、guard.max_unmatched_percent {limit})",
    "columns_changed": "列が前回の成功と違う (guard.same_columns): 増えた列 {new}、なくなった列 {gone}",
    "columns_reordered": "列の順番が前回の成功と違う (guard.same_columns)",
    "no_json_object": "JSON オブジェクトではありません",
    "fields_missing": "{names} がありません",
    "webhook_no_url": "{name} が URL ではありません",
    "password_line_end": "password の前後に改行があります。シェルからの貼り付けで入ることがあります",
    "schema_no_string": "schema_name が文字列ではありません",
    "ca_missing": "オブジェクトがありません",
    "no_certificates": "PEM 形式の証明書がありません",
    "or": "{first} か {second}",
    "url_invalid": "JDBC_CONNECTION_URL の値 {url!r} が {expected} の形ではありません",
    "ca_uri_invalid": "Database.ca_uri (CUSTOM_JDBC_CERT) の値 {uri!r} が s3://bucket/bundle.pem の形ではありません",
    "ca_without_tls": "Database.ca_uri (CUSTOM_JDBC_CERT) には enforce_ssl (JDBC_ENFORCE_SSL) の true が必要です",
    "ca_needs_driver": "Database.ca_uri (CUSTOM_JDBC_CERT) にはドライバー org.mariadb.jdbc.Driver が必要です",
    "ca_doubted": "Database.ca_uri (CUSTOM_JDBC_CERT) と JDBC_CONNECTION_URL の {names} が矛盾しています",
    "no_records": "レコードがありません",
    "no_columns": "列がありません",
    "array": "配列",
    "boolean": "真偽値",
    "null": " null 値",
    "string_or_number": "文字列か数値",
    "beginning": "先頭が '[' でも '{{' でもなく {beginning} です",
    "gzip_broken": "gzip ファイルが壊れています ({reason})",
    "not_utf8": "UTF-8 ではありません ({reason})",
    "not_json": "{text} は JSON の値ではありません",
    "value_expected": "値がありません",
    "values_on_line": "1 行に複数の値があります",
    "line_ends": "レコードの途中で行が終わっています",
    "indented": "複数行にわたるオブジェクトです。中にレコードの配列があれば S3.records_at (--records_at) で読めます",
    "array_ends": "配列またはオブジェクトの途中でファイルが終わっています",
    "path": "ドットでつないだ名前",
    "columns": '列の JSON 配列 (要素は列名または {{"from": "zip", "as": "postcode"}})',
    "columns_once": "重複のない出力列名 ({name!r} が 2 回あります)",
    "condition": "; と ? を含まない SQL の条件 1 つ",
    "in_envelope": "レコードを囲むオブジェクト (S3.records_at) の中で {expected} が必要です",
    "no_array": "{name!r} は{kind}です",
    "no_object": "{name!r} は{kind}で、オブジェクトではありません",
    "no_member": "{name!r} という名前がありません (ある名前: {names})",
    "twice": "{name!r} が 2 回あります",
    "object": "オブジェクト",
    "after_record": "レコードの後に ',' か ']' がありません",
    "after_array": "配列の終わりの後に余分な内容があります",
    "record_too_large": "レコードが {limit} MiB を超えています",
    "nested": "ネストが深すぎます",
    "nested_in": "{name!r} のネストが深すぎます",
    "surrogate_in": "{name!r} に不正なサロゲートペアがあります",
    "surrogate_in_name": "列名 {name!r} に不正なサロゲートペアがあります",
    "connection_lost": "接続が切れたか、タイムアウトしました",
    "row": "{number} 行目",
    "header": "ヘッダー",
}

# What Python's json, utf-8 and gzip say of a source.
LIBRARY_WORDS: dict[str, str] = {
    "Expecting property name enclosed in double quotes": "二重引用符で囲んだ項目名がありません",
    "Expecting ':' delimiter": "':' がありません",
    "Expecting ',' delimiter": "',' がありません",
    "Unterminated string starting at": "文字列が閉じられていません",
    "Invalid control character at": "文字列に制御文字がそのまま含まれています",
    "Invalid \\escape": "\\ の後の文字が不正です",
    "Invalid \\uXXXX escape": "\\u の後に 16 進数 4 桁がありません",
    "invalid start byte": "文字の先頭バイトが不正です",
    "invalid continuation byte": "文字の 2 バイト目以降が不正です",
    "unexpected end of data": "文字の途中で終わっています",
    "Compressed file ended before the end-of-stream marker was reached": "途中で切れています",
}
