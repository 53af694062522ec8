package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// secrets are all that a bootd has minted. Grants and tokens are stored as
// digests only, if at all, so they are found by digesting what looks like one.
type secrets struct {
	digests   map[string]bool // SHA-256 in hexadecimal
	fragments [][]byte        // of private keys, as they would look in a text
	raw       [][]byte        // of private keys and known tokens, as they would look in a binary file
}

var (
	hexDigest = regexp.MustCompile(`"([0-9a-f]{64})"`)
	address   = regexp.MustCompile(`/(?:artifacts|chain|uefi)/([A-Za-z0-9_-]{43})\b`)
	tokenRun  = regexp.MustCompile(`[A-Za-z0-9_-]{43,}`)
)

// mintedSecrets reads the state of a bootd that has stopped.
func mintedSecrets(t *testing.T, state string) secrets {
	t.Helper()
	s := secrets{digests: map[string]bool{}}
	db, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(state, "store")})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	grants, err := db.List(t.Context(), "grants/")
	require.NoError(t, err)
	for _, g := range grants {
		for _, m := range hexDigest.FindAllSubmatch(g.Value, -1) {
			s.digests[string(m[1])] = true
		}
	}
	require.NoError(t, filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !private(path) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s.addKeys(data)
		if filepath.Ext(path) == ".secret" {
			s.addToken(string(data))
		}
		return nil
	}))
	return s
}

// private reports whether a file of the state is one that secrets belong in.
func private(path string) bool {
	return strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".secret") || filepath.Base(path) == "client.pem"
}

// addKeys takes a piece of each private key that is in no other file: the ends
// are the same for all, and some hold their public key too.
func (s *secrets) addKeys(data []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		at := len(block.Bytes) / 2
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if ec, ok := key.(*ecdsa.PrivateKey); ok {
				number, err := ec.Bytes()
				if err != nil {
					continue
				}
				at = bytes.Index(block.Bytes, number) + 3
			}
		}
		s.raw = append(s.raw, block.Bytes[at:at+24])
		s.fragments = append(s.fragments, []byte(hex.EncodeToString(block.Bytes[at:at+24])))
		for i := range 3 { // base64 looks different at each of three offsets
			from := at - at%3 + i
			text := base64.StdEncoding.EncodeToString(block.Bytes[from : from+24])
			s.fragments = append(s.fragments, []byte(text))
		}
	}
}

// addTokens takes the tokens of the addresses in text.
func (s *secrets) addTokens(text []byte) {
	for _, m := range address.FindAllSubmatch(text, -1) {
		s.addToken(string(m[1]))
	}
}

func (s *secrets) addToken(token string) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return
	}
	sum := sha256.Sum256(raw)
	s.digests[hex.EncodeToString(sum[:])] = true
	s.raw = append(s.raw, raw)
	s.fragments = append(s.fragments, []byte(hex.EncodeToString(raw)))
}

// inFile is in, for a file that may be binary.
func (s *secrets) inFile(data []byte) []string {
	found := s.in(data)
	for _, raw := range s.raw {
		if bytes.Contains(data, raw) {
			found = append(found, "a secret's bytes")
		}
	}
	return found
}

// in lists what of the secrets stands in text.
func (s *secrets) in(text []byte) []string {
	var found []string
	lower := bytes.ToLower(text)
	unbroken := bytes.ReplaceAll(text, []byte("\n"), nil) // PEM wraps its lines
	for _, f := range s.fragments {
		if bytes.Contains(lower, f) || bytes.Contains(unbroken, f) {
			found = append(found, "a private key or token: "+string(f))
		}
	}
	for _, run := range tokenRun.FindAll(text, -1) {
		for i := 0; i+43 <= len(run); i++ {
			raw, err := base64.RawURLEncoding.DecodeString(string(run[i : i+43]))
			if err != nil {
				continue
			}
			sum := sha256.Sum256(raw)
			if s.digests[hex.EncodeToString(sum[:])] {
				found = append(found, "a grant or token")
			}
		}
	}
	return found
}

// TestSecretSearchFinds is the control of the search itself.
func TestSecretSearchFinds(t *testing.T) {
	state := t.TempDir()
	db, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(state, "store")})
	require.NoError(t, err)
	ca, err := pki.Open(t.Context(), pki.Config{Dir: filepath.Join(state, "pki"), Store: db, Hosts: []string{"ipxe.test"}})
	require.NoError(t, err)
	grants, err := pki.OpenGrants(t.Context(), db, nil, nil)
	require.NoError(t, err)
	require.NoError(t, grants.Open(t.Context(), "b1", uuidOf(1), "node1", [32]byte{}))
	grant, _, err := grants.Mint(t.Context(), "b1", [32]byte{})
	require.NoError(t, err)
	require.NotNil(t, ca)
	require.NoError(t, db.Close())

	s := mintedSecrets(t, state)
	key, err := os.ReadFile(filepath.Join(state, "pki", "root.key"))
	require.NoError(t, err)
	require.NotEmpty(t, s.in(key))
	require.NotEmpty(t, s.in([]byte("GET /?token="+grant.Encode()+"&x")))
	require.NotEmpty(t, s.in([]byte("aaaa"+grant.Secret.Encode()+"bbbb")), "also in the middle of other letters")
	require.Empty(t, s.in([]byte("nothing "+strings.Repeat("A", 80))))
	address := []byte("https://boot.test/artifacts/" + pki.NewSecret().Encode() + "/rack1.iso")
	require.Empty(t, s.in(address))
	s.addTokens(address)
	require.NotEmpty(t, s.in(address))
	der, _ := pem.Decode(key)
	require.NotEmpty(t, s.inFile(append([]byte{0}, der.Bytes...)), "a key in its binary form")
}
