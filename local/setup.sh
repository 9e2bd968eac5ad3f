#!/bin/sh
# Installs what runs and tests need from Debian where it lacks: Java 17, both databases and their JDBC drivers; with
# `browser` also the smallest Chromium, for the tests of pages, with `fonts` what the pictures of docs/ are made with.
set -eu

PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=""
java -version 2>&1 | grep -q '"17\.' || missing="$missing openjdk-17-jre-headless"
command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || missing="$missing mariadb-server"
command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
command -v openssl >/dev/null || missing="$missing openssl"
test -f "${MARIADB_JDBC_JAR:-/usr/share/java/mariadb-java-client.jar}" || missing="$missing libmariadb-java"
test -f "${POSTGRESQL_JDBC_JAR:-/usr/share/java/postgresql.jar}" || missing="$missing libpostgresql-jdbc-java"
case " $* " in *" browser "*)
  command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || missing="$missing chromium-headless-shell"
esac
case " $* " in *" fonts "*)
  for font in fonts-noto-cjk fonts-noto-color-emoji; do
    dpkg -s "$font" >/dev/null 2>&1 || missing="$missing $font"
  done
esac
test -n "$missing" || exit 0

if test "$(id -u)" = 0; then
  as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root="sudo"
else
  as_root="none"
fi
if test "$as_root" = none || ! command -v apt-get >/dev/null; then
  echo "Missing:$missing. Install them, on Debian or Ubuntu:" >&2
  echo "  sudo apt-get update && sudo apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
echo "installing$missing ..."
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get -qq update
# shellcheck disable=SC2086
$as_root apt-get -qq install --no-install-recommends $missing >/dev/null
