package depot

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/images/bundle"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

var bundleKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))

func (w *world) bases(name, content string) string {
	w.t.Helper()
	dir := filepath.Join(filepath.Dir(w.dir), "bases")
	require.NoError(w.t, os.MkdirAll(filepath.Join(dir, name), 0o700))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, name, "snponly.efi"), []byte(content), 0o600))
	return dir
}

func (w *world) export(bases string, refs ...release.Ref) []byte {
	w.t.Helper()
	e, err := w.Export(refs, bases, bundleKey)
	require.NoError(w.t, err)
	var b bytes.Buffer
	require.NoError(w.t, e.Write(w.t.Context(), &b))
	return b.Bytes()
}

func trust(fingerprint string) ImportOptions {
	return ImportOptions{Trusted: func(f string) bool { return f == fingerprint }}
}

func TestAirGap(t *testing.T) {
	here, there := newWorld(t), newWorld(t)
	one, two := here.must("flatcar:stable:1.0"), here.must("flatcar:beta:2.0")
	data := here.export(here.bases("ipxe_1.0", "stock"), one.Ref, two.Ref)
	o := trust(bundle.Fingerprint(bundleKey.Public().(ed25519.PublicKey)))
	o.Bases = there.bases("ipxe_0.9", "old")
	for range 2 { // again, it changes nothing
		got, err := there.Import(t.Context(), bytes.NewReader(data), o)
		require.NoError(t, err)
		require.Equal(t, []string{two.ID(), one.ID()}, got.Releases)
	}
	for _, m := range []Manifest{one, two} {
		got, err := there.Get(m.Ref)
		require.NoError(t, err)
		require.Equal(t, m, got)
		damaged, err := there.Verify(t.Context(), m.Ref)
		require.NoError(t, err)
		require.Empty(t, damaged)
	}
	there.flip(one.Kernel)
	_, err := there.Import(t.Context(), bytes.NewReader(data), o)
	require.NoError(t, err)
	damaged, err := there.Verify(t.Context(), one.Ref)
	require.NoError(t, err)
	require.Empty(t, damaged, "an import mends what is damaged")
	base, err := os.ReadFile(filepath.Join(o.Bases, "ipxe_1.0", "snponly.efi"))
	require.NoError(t, err)
	require.Equal(t, "stock", string(base))
	left, err := os.ReadDir(there.path(partialDir))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestT28_ImportIsWholeOrNothing(t *testing.T) {
	here := newWorld(t)
	one := here.must("flatcar:stable:1.0")
	data := here.export("", one.Ref)
	good := trust(bundle.Fingerprint(bundleKey.Public().(ed25519.PublicKey)))
	at := bytes.Index(data, []byte("initrd flatcar"))
	require.Positive(t, at)
	flipped := bytes.Clone(data)
	flipped[at] ^= 1
	full := good
	full.Reserve = 1 << 60
	for name, tt := range map[string]struct {
		data []byte
		o    ImportOptions
		want string
	}{
		"one bit":   {flipped, good, "is not what was signed"},
		"cut":       {data[:at], good, "unexpected EOF"},
		"another":   {data, trust("x"), "not trusted here"},
		"full disk": {data, full, "no space left"},
		"nothing":   {nil, good, "ends before"},
		"rubbish":   {bytes.Repeat([]byte("x"), 4096), good, "read bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			there := newWorld(t)
			_, err := there.Import(t.Context(), bytes.NewReader(tt.data), tt.o)
			require.ErrorContains(t, err, tt.want)
			list, err := there.List()
			require.NoError(t, err)
			require.Empty(t, list)
			for _, dir := range []string{blobDir, partialDir} {
				left, err := os.ReadDir(there.path(dir))
				require.NoError(t, err)
				require.Empty(t, left, dir)
			}
		})
	}
}

func TestT29_ImportIsNoDowngrade(t *testing.T) {
	here, there := newWorld(t), newWorld(t)
	data := here.export("", here.must("flatcar:stable:1.0").Ref)
	there.must("flatcar:stable:2.0")
	o := trust(bundle.Fingerprint(bundleKey.Public().(ed25519.PublicKey)))
	_, err := there.Import(t.Context(), bytes.NewReader(data), o)
	var r *signature.Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, signature.CodeDowngrade, r.Code)
	o.Force = true
	_, err = there.Import(t.Context(), bytes.NewReader(data), o)
	require.NoError(t, err)
}

func TestExportRefusesWhatIsDamaged(t *testing.T) {
	w := newWorld(t)
	m := w.must("flatcar:stable:1.0")
	w.flip(m.Kernel)
	e, err := w.Export([]release.Ref{m.Ref}, "", bundleKey)
	require.NoError(t, err, "nobody has read it yet")
	require.ErrorContains(t, e.Write(t.Context(), &bytes.Buffer{}), "not what its digest says")
	_, err = w.Verify(t.Context(), m.Ref)
	require.NoError(t, err)
	_, err = w.Export([]release.Ref{m.Ref}, "", bundleKey)
	require.ErrorContains(t, err, "is damaged")
	_, err = w.Export([]release.Ref{ref(t, "flatcar:stable:9")}, "", bundleKey)
	require.True(t, errors.Is(err, ErrUnknown))
	require.False(t, errors.Is(err, syscall.ENOSPC))
}
