package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	at  = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
)

func file(name, text string) File {
	s := sha256.Sum256([]byte(text))
	f := File{Name: name, Size: int64(len(text)), SHA256: hex.EncodeToString(s[:])}
	if name == "" {
		f.Name = "blobs/" + f.SHA256
	}
	return f
}

func index(texts ...string) (Index, map[string]string) {
	x := Index{Format: 1, Created: at, Manifests: []json.RawMessage{json.RawMessage(`{"a": 1}`)}}
	content := map[string]string{}
	for _, t := range texts {
		f := file("", t)
		x.Files, content[f.Name] = append(x.Files, f), t
	}
	f := file("bases/ipxe_1.0+git-2/snponly.efi", "base")
	x.Files, content[f.Name] = append(x.Files, f), "base"
	return x, content
}

func write(t testing.TB, x Index, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, x, key, func(f File) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content[f.Name])), nil }))
	return b.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// read takes a whole bundle, and returns what it held.
func read(data []byte, trusted string) (map[string]string, error) {
	b, err := Read(bytes.NewReader(data), func(f string) bool { return f == trusted })
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for {
		var text bytes.Buffer
		f, err := b.Next(func(File) (io.WriteCloser, error) { return nopCloser{&text}, nil })
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out[f.Name] = text.String()
	}
}

func mine() string { return Fingerprint(ed25519.PublicKey(key[32:])) }

func TestRoundTrip(t *testing.T) {
	x, content := index("kernel", "initrd")
	bundle := write(t, x, content)
	got, err := read(bundle, mine())
	require.NoError(t, err)
	require.Equal(t, content, got)
	require.Equal(t, bundle, write(t, x, content), "the same bundle is the same bytes")
	_, err = read(bundle, "")
	var u *Untrusted
	require.ErrorAs(t, err, &u)
	require.Equal(t, mine(), u.Fingerprint)
}

func TestEveryFlippedByteIsNoticed(t *testing.T) {
	x, content := index("kernel")
	bundle := write(t, x, content)
	for i := range bundle {
		changed := bytes.Clone(bundle)
		changed[i] ^= 0x20
		got, err := read(changed, mine())
		if err == nil { // what tar says of times and owners counts for nothing
			require.Equal(t, content, got, "byte %d", i)
		}
	}
	for n := range bundle[:len(bundle)-2*512] {
		if _, err := read(bundle[:n], mine()); err == nil {
			require.GreaterOrEqual(t, n, len(bundle)-3*512, "only the end of the archive may be missing")
		}
	}
}

// forge is a bundle with other entries than Write would make, signed all the
// same: a signature is no reason to believe in names.
func forge(t *testing.T, x Index, change func(t *tar.Writer)) []byte {
	t.Helper()
	list, err := json.Marshal(x)
	require.NoError(t, err)
	sealed, err := json.Marshal(seal{Key: []byte(key[32:]), Signature: ed25519.Sign(key, append([]byte(domain), list...))})
	require.NoError(t, err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, put(w, indexName, list, at))
	require.NoError(t, put(w, signatureName, sealed, at))
	change(w)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestT27_SlipCorpus(t *testing.T) {
	for _, name := range []string{
		"../x", "/etc/passwd", "blobs/../../x", "blobs/" + strings.Repeat("A", 64), "bases/../x", "bases/a_b/../x", "bases/a_b/c/d",
		"bases/.._b/x", "bases/a_b/..", "bases/a_../x", "bases/a_b/.x", "bases/a/x", "manifests/x", "", "blobs/x\x00", `blobs\x`, "bases/a_b/x\n",
	} {
		x, _ := index()
		x.Files = []File{{Name: name, Size: 1, SHA256: strings.Repeat("a", 64)}}
		_, err := read(forge(t, x, func(*tar.Writer) {}), mine())
		require.ErrorContains(t, err, "does not belong there", "%q", name)
	}
	x, _ := index("kernel")
	blob := x.Files[0].Name
	for name, h := range map[string]*tar.Header{
		"symlink":   {Typeflag: tar.TypeSymlink, Name: blob, Linkname: "/etc/passwd"},
		"hard link": {Typeflag: tar.TypeLink, Name: blob, Linkname: "/etc/passwd"},
		"folder":    {Typeflag: tar.TypeDir, Name: blob},
		"device":    {Typeflag: tar.TypeBlock, Name: blob},
		"pax":       {Typeflag: tar.TypeReg, Name: blob, Size: 0, PAXRecords: map[string]string{"NESTBOOT.x": "y"}},
		"another":   {Typeflag: tar.TypeReg, Name: "blobs/x"},
		"short":     {Typeflag: tar.TypeReg, Name: blob},
	} {
		_, err := read(forge(t, x, func(w *tar.Writer) { require.NoError(t, w.WriteHeader(h)) }), mine())
		require.Error(t, err, name)
	}
}

func TestT26_BoundsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Index){
		"size":     func(x *Index) { x.Files[0].Size = 1 << 60 },
		"negative": func(x *Index) { x.Files[0].Size = -1 },
		"files":    func(x *Index) { x.Files = make([]File, maxFiles+1) },
		"twice":    func(x *Index) { x.Files = append(x.Files, x.Files[0]) },
		"format":   func(x *Index) { x.Format = 2 },
		"digest":   func(x *Index) { x.Files[0].SHA256 = strings.Repeat("b", 64) },
	} {
		x, _ := index("kernel")
		change(&x)
		_, err := read(forge(t, x, func(*tar.Writer) {}), mine())
		require.Error(t, err, name)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(header(indexName, 1<<30, at))) // promises a gibibyte
	_, err := read(b.Bytes(), mine())
	require.ErrorContains(t, err, "longer than")
	x, content := index("kernel")
	more := forge(t, x, func(w *tar.Writer) {
		for _, f := range x.Files {
			require.NoError(t, put(w, f.Name, []byte(content[f.Name]), at))
		}
		require.NoError(t, put(w, "more", []byte("x"), at))
	})
	_, err = read(more, mine())
	require.ErrorContains(t, err, "more than its list")
}

func TestWriteRefusesWhatChanged(t *testing.T) {
	x, _ := index("kernel")
	err := Write(io.Discard, x, key, func(File) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("kErnel")), nil })
	require.ErrorContains(t, err, "not what its digest says")
}

func FuzzBundle(f *testing.F) {
	x, content := index("kernel")
	f.Add(write(f, x, content))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := read(data, mine())
		if err == nil {
			require.Equal(t, content, got, "only what was signed comes out")
		}
	})
}

// FuzzSignedList: a signature is no reason to believe in a list.
func FuzzSignedList(f *testing.F) {
	x, _ := index("kernel")
	list, err := json.Marshal(x)
	require.NoError(f, err)
	f.Add(list, []byte("kernel"))
	f.Add([]byte(`{"format":1,"files":[{"name":"bases/a_b/../x","size":1,"sha256":""}]}`), []byte{})
	f.Fuzz(func(t *testing.T, list, rest []byte) {
		sealed, err := json.Marshal(seal{Key: []byte(key[32:]), Signature: ed25519.Sign(key, append([]byte(domain), list...))})
		require.NoError(t, err)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		require.NoError(t, errors.Join(put(w, indexName, list, at), put(w, signatureName, sealed, at)))
		require.NoError(t, w.Flush())
		got, err := read(append(b.Bytes(), rest...), mine())
		for name := range got {
			require.NoError(t, err)
			require.True(t, filepath.IsLocal(name), "%q", name)
			require.True(t, strings.HasPrefix(name, "blobs/") || strings.HasPrefix(name, "bases/"), "%q", name)
		}
	})
}
