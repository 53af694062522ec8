package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// contents is what one file holds.
type contents struct {
	certs []*x509.Certificate
	keys  []crypto.Signer
}

// errPassword is what decryption gives if it failed as it does with a wrong
// password. Nothing tells that from a damaged file.
var errPassword = errors.New("wrong password")

// reader reads one file. It asks for the password at most once.
type reader struct {
	name string
	ask  func(name string) ([]byte, error)
	got  []byte
}

// read reads a file of any kind that this package knows.
func read(s Source, ask func(name string) ([]byte, error)) (contents, error) {
	if len(s.Data) > MaxFile {
		return contents{}, fmt.Errorf("%s has %d bytes, more than the %d that any certificate or key needs", s.Name, len(s.Data), MaxFile)
	}
	r := &reader{name: s.Name, ask: ask}
	var held contents
	var err error
	if bytes.Contains(s.Data, []byte("-----BEGIN ")) {
		held, err = r.pem(s.Data)
	} else {
		held, err = r.der(s.Data)
	}
	if err != nil {
		return contents{}, fmt.Errorf("read %s: %w", s.Name, err)
	}
	return held, nil
}

func (r *reader) password() ([]byte, error) {
	if r.got != nil {
		return r.got, nil
	}
	if r.ask == nil {
		return nil, errors.New("it is encrypted, and no password can be asked for here")
	}
	p, err := r.ask(r.name)
	if err != nil {
		return nil, fmt.Errorf("ask for its password: %w", err)
	}
	r.got = append([]byte{}, p...) // not nil: an empty answer is one too
	return r.got, nil
}

// pem reads every block. Text around blocks is ignored, as PEM has it, and so
// are the curve parameters that openssl writes before an EC key.
func (r *reader) pem(data []byte) (contents, error) {
	var held contents
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type == "EC PARAMETERS" {
			continue
		}
		if err := r.block(block, &held); err != nil {
			return contents{}, fmt.Errorf("%s: %w", block.Type, err)
		}
	}
	if len(held.certs)+len(held.keys) == 0 {
		return contents{}, errors.New("it has no whole PEM block: was it cut short?")
	}
	return held, nil
}

func (r *reader) block(block *pem.Block, held *contents) error {
	if block.Type == "CERTIFICATE" {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		held.certs = append(held.certs, cert)
		return nil
	}
	if len(held.keys) > 0 { // before more work goes into decrypting
		return errors.New("the file holds a second private key: leave only the one to use")
	}
	der, err := r.decrypted(block)
	if err != nil {
		return err
	}
	var key any
	switch block.Type {
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default:
		return errors.New("this is neither a certificate nor a private key in a form that openssl writes by default")
	}
	if err != nil && r.got != nil {
		return errPassword // the padding was right by chance
	}
	if err != nil {
		return err
	}
	return held.add(key)
}

// decrypted is the block's bytes in the clear, whichever of the two ways they
// were encrypted.
func (r *reader) decrypted(block *pem.Block) ([]byte, error) {
	//lint:ignore SA1019 it is insecure, but openssl 1 wrote keys so, and they are asked for
	legacy := x509.IsEncryptedPEMBlock(block)
	if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
		return block.Bytes, nil
	}
	password, err := r.password()
	if err != nil {
		return nil, err
	}
	if !legacy {
		return decryptPKCS8(block.Bytes, password)
	}
	//lint:ignore SA1019 as above; one round of MD5, so that no file can make it slow
	der, err := x509.DecryptPEMBlock(block, password)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, errPassword
	}
	return der, err
}

// der reads DER, which does not say what it is: each form is tried, and the
// structures are different enough for only one to fit.
func (r *reader) der(data []byte) (contents, error) {
	if cert, err := x509.ParseCertificate(data); err == nil {
		return contents{certs: []*x509.Certificate{cert}}, nil
	}
	if p, ok := parsePFX(data); ok {
		return r.pkcs12(data, len(p.Mac.FullBytes) > 0)
	}
	if isEncryptedPKCS8(data) {
		password, err := r.password()
		if err != nil {
			return contents{}, err
		}
		if data, err = decryptPKCS8(data, password); err != nil {
			return contents{}, err
		}
	}
	key, err := parseKey(data)
	if err != nil && r.got != nil {
		return contents{}, errPassword // the padding was right by chance
	}
	if err != nil {
		return contents{}, err
	}
	var held contents
	err = held.add(key)
	return held, err
}

func parseKey(der []byte) (any, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if bytes.HasPrefix(der, []byte{0x30, 0x80}) {
		return nil, errors.New("it is BER with indefinite lengths: convert it with openssl pkcs12 -in OLD -out NEW.pem")
	}
	return nil, errors.New("it is neither PEM nor DER nor PKCS #12 with a certificate or a private key")
}

func (c *contents) add(key any) error {
	signer, ok := key.(crypto.Signer)
	if !ok { // X25519
		return fmt.Errorf("keys of type %T cannot sign: use RSA-2048 or P-256", key)
	}
	c.keys = append(c.keys, signer)
	return nil
}
