//go:build programs

// Package crds names the module whose CustomResourceDefinitions the tests install.
package crds

import _ "sigs.k8s.io/gateway-api/apis/v1"
