package integration

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/nestboot/nestboot"

// importTable says which of our packages each package may import. Test files
// may import anything. A package that is not listed fails the test: decide
// where it stands first, and say why in the commit.
var importTable = map[string][]string{
	"boot":     {},
	"tftp":     {},
	"ignition": {},
	"store":    {},
	"images":   {},
	// Releases of systems: what is described, who signed it, how it gets here.
	"images/release":   {},
	"images/signature": {},
	"images/bundle":    {},
	"images/fetch":     {"images"},
	"images/depot":     {"images", "images/bundle", "images/release", "images/signature"},
	"images/pull":      {"images/depot", "images/fetch", "images/release", "images/signature"},
	// ipxebuild's script is built by boot's script builder: one builder, one
	// place where a word is checked.
	"ipxebuild":          {"boot", "ipxebuild/bios", "ipxebuild/disk", "ipxebuild/single"},
	"ipxebuild/bios":     {},
	"ipxebuild/disk":     {},
	"ipxebuild/single":   {"boot"},
	"ipxebuild/identity": {},
	"pki/vault":          {}, // private files of pki, artifact and pki/links, whose checks each had before
	"pki":                {"pki/vault", "store"},
	"pki/serving":        {"pki"},
	"pki/trusted":        {"pki", "store"},
	"pki/links":          {"boot", "pki", "pki/vault", "store"}, // boot says what a UUID is
	"inventory":          {"boot", "store"},
	"artifact":           {"boot", "ipxebuild", "pki", "pki/vault", "store"}, // a set names architectures and machines
	"httpboot":           {"boot", "ignition", "pki"},
	"admin":              {"boot", "artifact", "ignition", "images", "images/bundle", "images/depot", "images/pull", "images/release", "images/signature", "inventory", "ipxebuild", "pki", "pki/links", "pki/serving", "pki/trusted", "store"},
}

// free may import everything of ours.
var free = []string{"cmd", "integration"}

func TestImportTable(t *testing.T) {
	seen := map[string]bool{}
	forEachGoFile(t, func(dir, file string) {
		top, _, _ := strings.Cut(dir, "/")
		if slices.Contains(free, top) {
			return
		}
		allowed, listed := importTable[dir]
		require.Truef(t, listed, "package %s is not in the import table", dir)
		seen[dir] = true
		for _, imp := range ourImports(t, file) {
			require.Containsf(t, allowed, imp, "%s imports %s, which the import table forbids", file, imp)
		}
	})
	for dir := range importTable {
		require.Truef(t, seen[dir], "package %s is in the import table but does not exist", dir)
	}
}

// forEachGoFile calls f with the folder and path of each Go file that is not a
// test, relative to the root of the project.
func forEachGoFile(t *testing.T, f func(dir, file string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != ".." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			rel, err := filepath.Rel("..", filepath.Dir(path))
			if err != nil {
				return err
			}
			f(filepath.ToSlash(rel), path)
		}
		return nil
	}))
}

// ourImports lists the packages of ours that a file imports.
func ourImports(t *testing.T, file string) []string {
	t.Helper()
	src, err := os.ReadFile(file)
	require.NoError(t, err)
	f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
	require.NoError(t, err)
	var ours []string
	for _, s := range f.Imports {
		path, err := strconv.Unquote(s.Path.Value)
		require.NoError(t, err)
		if rest, ok := strings.CutPrefix(path, module+"/"); ok {
			ours = append(ours, rest)
		}
	}
	return ours
}
