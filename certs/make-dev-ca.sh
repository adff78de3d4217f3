#!/usr/bin/env bash
# Write a throw-away CA (once) and a server certificate for the given host names into this folder.
set -euo pipefail
cd "$(dirname "$0")"
umask 077

[ "$#" -ge 1 ] || { echo "usage: $0 HOST [HOST...]" >&2; exit 2; }
host=$1
names=$(printf 'DNS:%s,' "$@")

if [ ! -f dev-ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
    -subj '/CN=meshgw development CA' -keyout dev-ca.key -out dev-ca.pem
fi
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" -keyout "$host.key" -out "$host.csr"
openssl x509 -req -in "$host.csr" -CA dev-ca.pem -CAkey dev-ca.key -CAcreateserial -days 30 \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "${names%,}") -out "$host.pem"
rm -f "$host.csr"
echo "wrote $PWD/$host.pem, $host.key and dev-ca.pem"
