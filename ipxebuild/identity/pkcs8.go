package identity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// MaxIterations is the most rounds that a file may ask for to turn a password
// into a key: about a second of work. openssl asks for 2048, the careful for
// 600,000; more would only let a hostile file keep this machine busy.
const MaxIterations = 2_000_000

// convert is the way out for keys that are encrypted in a form not known here.
const convert = "convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"

// Object identifiers of RFC 8018, section C.
const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
)

// encryptedKey is EncryptedPrivateKeyInfo of RFC 5958.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// pbes2 is PBES2-params of RFC 8018, section A.4.
type pbes2 struct {
	Derivation pkix.AlgorithmIdentifier
	Encryption pkix.AlgorithmIdentifier
}

// derivation is PBKDF2-params of RFC 8018, section A.2.
type derivation struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// isEncryptedPKCS8 tells an encrypted key, whose first element is an algorithm,
// from a plain one, which begins with a version.
func isEncryptedPKCS8(der []byte) bool {
	_, err := parseWhole[encryptedKey](der)
	return err == nil
}

// decryptPKCS8 is the PKCS #8 key inside an encrypted one. It decrypts what
// openssl writes by default: PBES2 with PBKDF2 and a block cipher in CBC mode.
func decryptPKCS8(der, password []byte) ([]byte, error) {
	enc, err := parseWhole[encryptedKey](der)
	if err != nil {
		return nil, fmt.Errorf("not an encrypted PKCS #8 key: %w", err)
	}
	if oid := enc.Algorithm.Algorithm.String(); oid != oidPBES2 {
		return nil, fmt.Errorf("its encryption %s is not PBES2: %s", oid, convert)
	}
	params, err := parseWhole[pbes2](enc.Algorithm.Parameters.FullBytes)
	if err != nil {
		return nil, fmt.Errorf("PBES2: %w", err)
	}
	c, err := cipherOf(params.Encryption)
	if err != nil {
		return nil, err
	}
	key, err := derive(params.Derivation, password, c.keySize)
	if err != nil {
		return nil, err
	}
	return c.decrypt(key, enc.Data)
}

// derive turns the password into a key of the given size.
func derive(a pkix.AlgorithmIdentifier, password []byte, size int) ([]byte, error) {
	if oid := a.Algorithm.String(); oid != oidPBKDF2 {
		return nil, fmt.Errorf("its key derivation %s is not PBKDF2: %s", oid, convert)
	}
	d, err := parseWhole[derivation](a.Parameters.FullBytes)
	if err != nil {
		return nil, fmt.Errorf("PBKDF2: %w", err)
	}
	if err := checkIterations(int64(d.Iterations)); err != nil {
		return nil, err
	}
	// RFC 8018, section B.1; SHA-1 is the default, and openssl 1.0 wrote it.
	newHash, ok := map[string]func() hash.Hash{
		"":                    sha1.New,
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}[d.PRF.Algorithm.String()]
	if !ok {
		return nil, fmt.Errorf("PBKDF2 with %s is not known here: %s", d.PRF.Algorithm, convert)
	}
	return pbkdf2.Key(newHash, string(password), d.Salt, d.Iterations, size)
}

func checkIterations(n int64) error {
	if n < 1 || n > MaxIterations {
		return fmt.Errorf("it asks for %d rounds of key derivation, and at most %d are done here: "+
			"export it again with fewer", n, MaxIterations)
	}
	return nil
}

// blockCipher is a cipher in CBC mode.
type blockCipher struct {
	keySize int // bytes
	new     func(key []byte) (cipher.Block, error)
	iv      []byte
}

func cipherOf(a pkix.AlgorithmIdentifier) (blockCipher, error) {
	c, ok := map[string]blockCipher{
		"2.16.840.1.101.3.4.1.2":  {keySize: 16, new: aes.NewCipher},
		"2.16.840.1.101.3.4.1.22": {keySize: 24, new: aes.NewCipher},
		"2.16.840.1.101.3.4.1.42": {keySize: 32, new: aes.NewCipher},
		"1.2.840.113549.3.7":      {keySize: 24, new: des.NewTripleDESCipher},
	}[a.Algorithm.String()]
	if !ok {
		return blockCipher{}, fmt.Errorf("its cipher %s is neither AES nor 3DES in CBC mode: %s", a.Algorithm, convert)
	}
	iv, err := parseWhole[[]byte](a.Parameters.FullBytes)
	if err != nil {
		return blockCipher{}, fmt.Errorf("initialization vector: %w", err)
	}
	c.iv = iv
	return c, nil
}

// decrypt removes the padding too (RFC 8018, section 6.1.1). A wrong key shows
// in it, 255 times out of 256.
func (c blockCipher) decrypt(key, data []byte) ([]byte, error) {
	block, err := c.new(key)
	if err != nil {
		return nil, fmt.Errorf("start cipher: %w", err)
	}
	size := block.BlockSize()
	if len(c.iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errors.New("its encrypted part is damaged: it does not consist of whole blocks")
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, c.iv).CryptBlocks(out, data)
	pad := int(out[len(out)-1])
	if pad == 0 || pad > size || !bytes.HasSuffix(out, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errPassword
	}
	return out[:len(out)-pad], nil
}

// parseWhole reads one DER value that takes all of der.
func parseWhole[T any](der []byte) (T, error) {
	var v, none T
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil {
		return none, err
	}
	if len(rest) > 0 {
		return none, errors.New("something follows it")
	}
	return v, nil
}
