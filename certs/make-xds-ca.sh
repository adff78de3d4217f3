#!/usr/bin/env bash
# Write a throw-away CA and a certificate for the controller's xDS server, for `meshgw controller --xds-secret`.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
namespace=${1:-meshgw-system}
host=meshgw.$namespace.svc

mkdir -p xds
cd xds
if [ ! -f ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/O=meshgw development xDS CA' \
    -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout ca.key -out ca.crt
fi
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" -keyout tls.key -out tls.csr
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out tls.crt \
  -extfile <(printf 'subjectAltName=DNS:%s,DNS:%s.cluster.local\nextendedKeyUsage=serverAuth\n' "$host" "$host")
rm -f tls.csr
echo "wrote $PWD; then:"
echo "  kubectl -n $namespace create secret generic meshgw-xds-tls --type=kubernetes.io/tls \\"
echo "    --from-file=tls.crt --from-file=tls.key --from-file=ca.crt"
