package main

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"

	"github.com/nestboot/nestboot/integration/customer"
)

// files are the certificates of one bench, which both servers are given.
type files struct {
	Chain  string // of the server: leaf, intermediate, root
	Key    string // of the server's leaf
	CA     string // issuer of client certificates
	Client tls.Certificate
}

// makeFiles makes two authorities as a customer has them, one for servers and
// one for machines, and writes what the servers need into dir.
func makeFiles(dir string, k customer.KeyType, names ...string) (f files, err error) {
	root, err := customer.NewRoot(k, "Bench Root")
	if err != nil {
		return f, err
	}
	intermediate, err := root.Sub("Bench Intermediate")
	if err != nil {
		return f, err
	}
	server, err := intermediate.Issue(customer.Leaf{Name: names[0], Usage: x509.ExtKeyUsageServerAuth, Hosts: names})
	if err != nil {
		return f, err
	}
	machines, err := customer.NewRoot(k, "Bench Machines")
	if err != nil {
		return f, err
	}
	if f.Client, err = newClient(k, machines); err != nil {
		return f, err
	}
	f.Chain, f.Key, f.CA = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"), filepath.Join(dir, "clients.pem")
	if err := customer.WriteCerts(f.Chain, server.Chain...); err != nil {
		return f, err
	}
	if err := customer.WriteKey(f.Key, server.Key); err != nil {
		return f, err
	}
	return f, customer.WriteCerts(f.CA, machines.Cert)
}

// newClient makes the generator's certificate: of RSA with a key that costs it
// little.
func newClient(k customer.KeyType, ca *customer.Authority) (c tls.Certificate, err error) {
	leaf := customer.Leaf{Name: "machine", Usage: x509.ExtKeyUsageClientAuth}
	if k == customer.RSA2048 {
		key, err := newCheapKey()
		if err != nil {
			return c, err
		}
		c.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PKCS1WithSHA256}
		c.PrivateKey, leaf.Key = key, key.Public()
	}
	pair, err := ca.Issue(leaf)
	if err != nil {
		return c, err
	}
	if c.PrivateKey == nil {
		c.PrivateKey = pair.Key
	}
	c.Certificate = [][]byte{pair.Cert.Raw}
	return c, nil
}
