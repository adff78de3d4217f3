//go:build programs

// Package programs names what is built here by its import path, so that go.mod requires all of it.
package programs

import (
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
	_ "istio.io/istio/pkg/test/echo/cmd/client"
	_ "istio.io/istio/pkg/test/echo/cmd/server"
)
