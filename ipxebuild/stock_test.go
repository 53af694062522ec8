package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// bundleOf is a bundle of one .efi.
func bundleOf(t *testing.T, version, file, sum string) Bundle {
	t.Helper()
	b, err := ReadBase("snponly.efi", efi(t, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(t, version)))
	require.NoError(t, err)
	return Bundle{Origin: Origin{Package: "ipxe", Version: version, File: file, SHA256: sum}, Bases: []Base{b}}
}

func TestStockVersions(t *testing.T) {
	s := newStock(t, bundleOf(t, "1.21.1+git20250501", "a", ""), bundleOf(t, "10.0.0", "b", ""), bundleOf(t, "2.0.0+dfsg-5", "c", ""), bundleOf(t, "2.0.0+dfsg-10", "d", ""))
	require.Equal(t, []string{"10.0.0", "2.0.0+dfsg-10", "2.0.0+dfsg-5", "1.21.1+git20250501"}, s.Versions())
	require.Equal(t, "b", s.Bundles()[0].Origin.File, "newest first")
}

func TestStockRefuses(t *testing.T) {
	_, err := NewStock()
	require.ErrorContains(t, err, "install Debian's package ipxe")
	other := bundleOf(t, "2.0.0", "other", "")
	other.Bases[0].SHA256 = sha256.Sum256([]byte("x"))
	_, err = NewStock(bundleOf(t, "2.0.0", "a.deb", "00"), other)
	require.ErrorContains(t, err, "snponly.efi differs between a.deb and other")
	s := newStock(t, bundleOf(t, "2.0.0", "a.deb", "00"), bundleOf(t, "2.0.0", "folder", ""))
	require.Equal(t, "a.deb", s.releases[0].bases[nameSNP].from.Origin.File, "the first gives the origin")
}

func TestCheckKeyType(t *testing.T) {
	s := newStock(t, bundleOf(t, v1, "a", ""), bundleOf(t, "2.0.0", "b", ""), bundleOf(t, "2.0.0~rc1", "c", ""))
	require.NoError(t, s.CheckKeyType(RSA2048, ""))
	require.NoError(t, s.CheckKeyType(RSA2048, v1))
	require.NoError(t, s.CheckKeyType(P256, "2.0.0"))
	require.NoError(t, s.CheckKeyType(P256, ""))
	require.ErrorContains(t, s.CheckKeyType(P256, v1), "knows no ECDSA")
	require.ErrorContains(t, s.CheckKeyType("p384", ""), "want rsa2048 or p256")
	require.ErrorContains(t, s.CheckKeyType(RSA2048, "3"), `no base of iPXE "3": there is 2.0.0`)
}

// TestStockTakesSyslinuxOfOneBuild: an ldlinux.c32 of another build does not
// start.
func TestStockTakesSyslinuxOfOneBuild(t *testing.T) {
	all := bundles(t)
	older := func(b Bundle) Bundle {
		b.Origin.Version = "2:6.03-1"
		return b
	}
	folder := func(b Bundle) Bundle {
		b.Origin.SHA256, b.Origin.Version = "", "6.04-20250413"
		return b
	}
	for name, tt := range map[string]struct {
		bundles []Bundle
		want    []string // versions in use
	}{
		"one":              {all[2:], []string{all[2].Origin.Version}},
		"the newer":        {append([]Bundle{older(all[2]), older(all[3]), older(all[4])}, all[2:]...), []string{all[2].Origin.Version}},
		"the whole":        {[]Bundle{all[2], all[3], older(all[2]), older(all[3]), older(all[4])}, []string{"2:6.03-1"}},
		"folders":          {[]Bundle{folder(all[2]), folder(all[3]), folder(all[4])}, []string{"6.04-20250413"}},
		"a lonely package": {[]Bundle{all[2]}, []string{all[2].Origin.Version}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStock(t, append([]Bundle{all[0]}, tt.bundles...)...)
			var got []string
			for _, h := range s.syslinux {
				got = append(got, h.from.Origin.Version)
			}
			slices.Sort(got)
			require.Equal(t, tt.want, slices.Compact(got))
		})
	}
}

// TestTrustIsPatchedOnce: callers at the same time get the same bytes from one
// computation, and what was used last stays.
func TestTrustIsPatchedOnce(t *testing.T) {
	s := newStock(t, bundles(t)[1])
	root := sha256.Sum256([]byte("one root"))
	key := trustKey{s.releases[0], root}
	var wg sync.WaitGroup
	got := make([]*trusted, 8)
	for i := range got {
		wg.Go(func() {
			var err error
			got[i], err = s.cache.get(key)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	for _, x := range got {
		require.Same(t, got[0], x)
	}
	for kind, data := range map[Kind][]byte{KindKPXE: got[0].kpxe, KindLKRN: got[0].lkrn} {
		r, err := Inspect("x", data)
		require.NoError(t, err)
		version := map[Kind]string{KindKPXE: "2.0.0", KindLKRN: v2}[kind]
		require.Equal(t, Report{Format: "ipxe-" + string(kind), Version: version, Root: hexText(root)}, r)
	}
	own := []byte("2.0.0," + hexText(root)[:6] + "\x00")
	require.True(t, bytes.Contains(unpack(t, got[0].kpxe), own), "ours tells itself, and whose it is")
	require.False(t, bytes.Contains(unpack(t, got[0].lkrn), own))
}

func TestTrustCacheIsBounded(t *testing.T) {
	var c trustCache
	r := &release{} // without BIOS binaries there is nothing to patch
	first, err := c.get(trustKey{r, digest{0}})
	require.NoError(t, err)
	for i := range maxTrust + 10 {
		_, err := c.get(trustKey{r, digest{1, byte(i)}})
		require.NoError(t, err)
		again, err := c.get(trustKey{r, digest{0}})
		require.NoError(t, err)
		require.Same(t, first, again, "used last, so it stays")
		require.LessOrEqual(t, len(c.entries), maxTrust)
	}
	for i := range maxTrust {
		_, err := c.get(trustKey{r, digest{2, byte(i)}})
		require.NoError(t, err)
	}
	again, err := c.get(trustKey{r, digest{0}})
	require.NoError(t, err)
	require.NotSame(t, first, again)
}
