#!/bin/sh
# What people do today: a Postfix pipe filter that signs with the openssl command and hands the message back to sendmail.
# $1 certificate, $2 key, $3 sender, the rest recipients. The message is on standard input, with LF.
certificate=$1 key=$2 sender=$3
shift 3
message=$(mktemp) || exit 75
trap 'rm -f "$message" "$message.header" "$message.entity" "$message.signed"' EXIT
cat >"$message" || exit 75
# The Content-* fields belong to what is signed; all others stay outside.
sed -n '/^$/q;p' "$message" | grep -vi '^\(content-\|mime-version:\)' >"$message.header"
{ sed -n '/^$/q;p' "$message" | grep -i '^content-' || echo 'Content-Type: text/plain'; sed -n '/^$/,$p' "$message"; } >"$message.entity"
openssl cms -sign -in "$message.entity" -signer "$certificate" -inkey "$key" -md sha256 -out "$message.signed" 2>/dev/null || exit 75
cat "$message.header" "$message.signed" | /usr/sbin/sendmail -G -i -f "$sender" -- "$@"
