#!/usr/bin/env bash
# Write a throw-away mesh CA as Istio's Secret `cacerts` has it: a root, and an intermediate that istiod signs with.
set -euo pipefail
cd "$(dirname "$0")"
umask 077

mkdir -p mesh
cd mesh
if [ ! -f root-key.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/O=meshgw development mesh root' \
    -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout root-key.pem -out root-cert.pem
fi
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/O=meshgw development mesh CA' \
  -keyout ca-key.pem -out ca.csr
openssl x509 -req -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 30 -out ca-cert.pem \
  -extfile <(printf 'basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n')
cat ca-cert.pem root-cert.pem > cert-chain.pem
rm -f ca.csr
echo "wrote $PWD; before istiod is installed:"
echo "  kubectl create namespace istio-system"
echo "  kubectl -n istio-system create secret generic cacerts --from-file=root-cert.pem --from-file=ca-cert.pem \\"
echo "    --from-file=ca-key.pem --from-file=cert-chain.pem"
