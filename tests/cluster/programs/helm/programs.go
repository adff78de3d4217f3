//go:build programs

// Package programs names what is built here by its import path, so that go.mod requires all of it.
package programs

import _ "helm.sh/helm/v4/cmd/helm"
