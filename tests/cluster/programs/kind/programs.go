//go:build programs

// Package programs names the module whose program and files of node images the tests use.
package programs

import _ "sigs.k8s.io/kind/cmd/kind/app"
