package pki

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// spellings lists the ways in which b may turn up in text.
func spellings(b []byte) []string {
	decimal := fmt.Sprint(b)
	return []string{
		string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), fmt.Sprintf("% x", b),
		base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b),
		decimal[1 : len(decimal)-1], strings.ReplaceAll(decimal[1:len(decimal)-1], " ", ","), fmt.Sprintf("%q", b),
	}
}

// printed collects what v looks like in every way of printing.
func printed(t *testing.T, v any) string {
	t.Helper()
	var out bytes.Buffer
	for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
		for _, flags := range []string{"", "+", "#", " ", "-20", "020", ".3"} {
			if verb != 'T' {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", v)
			}
		}
	}
	fmt.Fprintln(&out, v, fmt.Errorf("because: %v", v))
	text, err := json.Marshal(v)
	require.NoError(t, err)
	out.Write(text)
	if text, err = xml.Marshal(v); err == nil {
		out.Write(text)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("boot", slog.Any("err", v), slog.Group("machine", slog.Any("arch", v)))
	}
	return out.String()
}

// lacks fails without printing all of text.
func lacks(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		before, _, found := strings.Cut(text, secret)
		require.False(t, found, "found %q after %q", secret, before[max(0, len(before)-100):])
	}
}

func TestT19_SecretsDoNotPrint(t *testing.T) {
	s := NewSecret()
	hidden := struct{ secret Secret }{s} // fmt asks no method of an unexported field
	token := Token{Boot: "b1", Secret: s}
	for _, v := range []any{s, &s, token, &token, hidden, &hidden, []Secret{s}, map[string]Secret{"k": s}, struct{ Public any }{s}} {
		lacks(t, printed(t, v), spellings(s.Reveal())...)
	}
	require.Equal(t, "[redacted]", fmt.Sprintf("%d", s))
	require.Equal(t, "[redacted]", s.String())
	require.Equal(t, "[redacted]", s.GoString())
	text, err := json.Marshal(token)
	require.NoError(t, err)
	require.JSONEq(t, `{"Boot":"b1","Secret":"[redacted]"}`, string(text))
}

func TestT19_MachineKeysDoNotPrint(t *testing.T) {
	cfg, _ := testConfig(t)
	m, err := openAuthority(t, cfg).IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	for _, v := range []any{m, &m, []MachineCredential{m}, MachineCredential{}} {
		out := printed(t, v)
		for _, number := range [][]byte{m.Key.D.Bytes(), m.Key.Primes[0].Bytes(), m.Key.Primes[1].Bytes()} {
			lacks(t, out, spellings(number)...)
		}
		lacks(t, out, m.Key.D.String(), m.Key.Primes[0].String())
	}
}

// TestT30_KeysAtRest runs everything that stores anything, then looks for what
// must not be there.
func TestT30_KeysAtRest(t *testing.T) {
	dir := t.TempDir()
	cfg, c := testConfig(t)
	cfg.Store = openStore(t, dir)
	cfg.Dir = filepath.Join(t.TempDir(), "made", "pki")
	book := newLogbook()
	cfg.Log = book.logger()
	a := openAuthority(t, cfg)
	m, err := a.IssueMachine(t.Context(), "rack-1", time.Time{})
	require.NoError(t, err)
	g, err := OpenGrants(t.Context(), cfg.Store, cfg.Log, c.Now)
	require.NoError(t, err)
	grant, done := bootOnce(t, g, "boot-1", "machine-1")
	require.NoError(t, cfg.Store.Close())

	secrets := []string{"PRIVATE KEY"}
	for _, b := range [][]byte{grant.Secret.Reveal(), done.Secret.Reveal(), m.Key.D.Bytes(), m.Key.Primes[0].Bytes()} {
		secrets = append(secrets, spellings(b)...)
	}
	var state strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		state.Write(content)
		return err
	}))
	require.Contains(t, state.String(), "boot-1", "the search must look where sessions are")
	lacks(t, state.String(), secrets...)
	lacks(t, book.String(), secrets...)
	checkModes(t, cfg.Dir)
	checkNoKey(t, cfg.Dir, m)
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	require.Len(t, listing(t, dir), len(allFiles()), "nothing may be left behind")
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, info.Mode().Perm(), path)
		return nil
	}))
}

// checkNoKey makes sure that the machine's own key was not written.
func checkNoKey(t *testing.T, dir string, m MachineCredential) {
	t.Helper()
	for _, name := range []string{"root", "intermediate", serverFile, serverECFile} {
		stored, err := keyDir{dir: dir}.readPair(name)
		require.NoError(t, err)
		require.False(t, belongs(m.Signer, stored.cert))
	}
}

func TestSecret(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	require.Len(t, a.Reveal(), 32)
	require.False(t, a.Equal(b))
	require.True(t, a.Equal(a))
	parsed, err := ParseSecret(a.Encode())
	require.NoError(t, err)
	require.True(t, parsed.Equal(a))

	a.Reveal()[0]++
	require.True(t, parsed.Equal(a), "Reveal gives a copy")

	var none Secret
	require.False(t, none.Equal(none))
	require.False(t, none.Equal(a))
	require.Empty(t, none.Reveal())
	require.False(t, none.is(Digest{}))
}

func TestParseTokenIsStrict(t *testing.T) {
	good := Token{Boot: "b-1_Z", Secret: NewSecret()}
	parsed, err := ParseToken(good.Encode())
	require.NoError(t, err)
	require.Equal(t, good.Boot, parsed.Boot)
	require.True(t, parsed.Secret.Equal(good.Secret))

	secret := strings.Repeat("A", 43)
	for _, bad := range []string{
		"", ".", "b", "b.", "." + secret, "b" + secret, "b." + secret + "A", "b." + secret[1:], "b." + secret + "=",
		"b." + strings.Repeat("A", 42) + "B", "b." + strings.Repeat("A", 42) + "\n", "b." + strings.Repeat("A", 42) + "+",
		"b/c." + secret, "../b." + secret, "b.c." + secret, "b c." + secret, "b\x00." + secret, " b." + secret,
		strings.Repeat("b", 65) + "." + secret, "ä." + secret,
	} {
		_, err := ParseToken(bad)
		require.Error(t, err, bad)
		if len(bad) > 1 {
			require.NotContains(t, err.Error(), bad, "an error is logged")
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("b." + strings.Repeat("A", 43))
	f.Add("b.c." + strings.Repeat("A", 43))
	f.Add("0190-boot_Id." + strings.Repeat("_-z9", 10) + "AAE")
	f.Add("b." + strings.Repeat("A", 42) + "B")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err == nil && token.Encode() != s {
			t.Fatalf("%q has a second spelling %q", s, token.Encode())
		}
		if err == nil && (checkID(token.Boot) != nil || len(token.Secret.Reveal()) != 32) {
			t.Fatalf("%q was accepted as %q", s, token.Boot)
		}
	})
}

func TestDigest(t *testing.T) {
	var d Digest
	require.NoError(t, d.UnmarshalText([]byte(strings.Repeat("0f", 32))))
	require.Equal(t, strings.Repeat("0f", 32), d.String())
	for _, bad := range []string{"", "0f", strings.Repeat("0g", 32), strings.Repeat("0f", 33)} {
		require.Error(t, d.UnmarshalText([]byte(bad)), bad)
	}
}
