package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/rig"
)

// credential is what a client shows, and how the operator ends it.
type credential struct {
	cert   *tls.Certificate // none for a token
	host   string           // SNI and Host
	path   string           // of a file that takes long to download
	revoke []string         // arguments of nestctl
}

// kind is one way of proving who one is.
type kind struct {
	name string
	make func(ctx context.Context, s *rig.LoopbackServer) (credential, error)
}

const (
	bootHost  = "boot." + rig.Domain
	ipxeHost  = "ipxe." + rig.Domain
	imagePath = "/ipxe/images/lab/kernel"
)

func kinds() []kind {
	return []kind{
		{"set", ofSet("gone", func(string) []string { return []string{"artifact", "delete", "gone"} })},
		{"certificate of a set", ofSet("ended", func(serial string) []string { return []string{"cert", "revoke", serial} })},
		{"customer's authority", trusted("--ca")},
		{"pinned certificate", trusted("--pin")},
		{"chain URL", chainURL},
		{"UEFI HTTP Boot URL", uefiURL},
	}
}

// ofSet makes a set and takes its certificate out of its script, as iPXE does.
func ofSet(name string, revoke func(serial string) []string) func(context.Context, *rig.LoopbackServer) (credential, error) {
	return func(ctx context.Context, s *rig.LoopbackServer) (c credential, err error) {
		if _, err := s.Nestctl(ctx, "artifact", "create", name); err != nil {
			return c, err
		}
		cert, err := s.Certificate(ctx, name)
		if err != nil {
			return c, err
		}
		return credential{&cert, ipxeHost, imagePath, revoke(cert.Leaf.SerialNumber.Text(16))}, nil
	}
}

// trusted registers a customer's authority or a certificate of his.
func trusted(flag string) func(context.Context, *rig.LoopbackServer) (credential, error) {
	return func(ctx context.Context, s *rig.LoopbackServer) (c credential, err error) {
		ca, err := customer.NewRoot(customer.P256, "Customer")
		if err != nil {
			return c, err
		}
		pair, err := ca.Issue(customer.Leaf{Name: "machine", Usage: x509.ExtKeyUsageClientAuth})
		if err != nil {
			return c, err
		}
		name, file := strings.TrimPrefix(flag, "--"), filepath.Join(s.Dir, "trusted"+flag+".pem")
		registered := ca.Cert
		if flag == "--pin" {
			registered = pair.Cert
		}
		if err := customer.WriteCerts(file, registered); err != nil {
			return c, err
		}
		if _, err := s.Nestctl(ctx, "trust", "add", name, flag, file); err != nil {
			return c, err
		}
		cert := &tls.Certificate{Certificate: [][]byte{pair.Cert.Raw}, PrivateKey: pair.Key}
		return credential{cert, ipxeHost, imagePath, []string{"trust", "remove", name}}, nil
	}
}

func chainURL(ctx context.Context, s *rig.LoopbackServer) (c credential, err error) {
	out, err := s.Nestctl(ctx, "url", "create", "chain", "provider", "-o", "json")
	if err != nil {
		return c, err
	}
	var answer struct {
		URL struct {
			HTTPS string `json:"https_url"`
		} `json:"ipxe_chain_url"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return c, fmt.Errorf("read the chain URL: %w", err)
	}
	return credential{nil, bootHost, pathOf(answer.URL.HTTPS) + imagePath, []string{"url", "revoke", "provider"}}, nil
}

func uefiURL(ctx context.Context, s *rig.LoopbackServer) (c credential, err error) {
	if _, err := s.Nestctl(ctx, "artifact", "create", "served"); err != nil {
		return c, err
	}
	out, err := s.Nestctl(ctx, "url", "create", "uefi", "firmware", "--set", "served", "-o", "json")
	if err != nil {
		return c, err
	}
	var answer struct {
		URL struct {
			HTTPS string `json:"https_url_amd64"`
		} `json:"uefi_http_boot_url"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return c, fmt.Errorf("read the UEFI URL: %w", err)
	}
	return credential{nil, bootHost, pathOf(answer.URL.HTTPS), []string{"url", "revoke", "firmware"}}, nil
}

// pathOf is a URL without scheme and host.
func pathOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	_, path, _ := strings.Cut(rest, "/")
	return "/" + path
}
