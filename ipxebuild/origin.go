package ipxebuild

// Origin says where the binaries of a bundle come from, so that whoever gets
// an artifact can be told where its source is.
type Origin struct {
	Package string `json:"package"`          // Debian's binary package, or the folder's path
	Version string `json:"version"`          // of the package; of a folder: what its binaries say, empty if they don't
	File    string `json:"file"`             // name of the .deb, or the folder's path
	SHA256  string `json:"sha256,omitempty"` // of the .deb, hexadecimal; empty for a folder
	License string `json:"license"`          // the terms, in a line
	Source  string `json:"source"`           // where the source code is, in a line
}

// Bundle is what one package or folder holds of the binaries that sets are
// made of. Make one with ReadDeb or ReadDir.
type Bundle struct {
	Origin  Origin
	Bases   []Base // by name
	License []byte // text of the package's copyright file; empty if there was none
}

// project is where a base comes from first of all.
type project struct {
	name, license, upstream string
}

// The terms as the projects state them; every file's own are in the text of
// the package's copyright file.
var (
	projectIPXE     = project{"iPXE", "GPL-2.0-or-later (most of it also UBDL)", "https://ipxe.org"}
	projectSyslinux = project{"syslinux", "GPL-2.0-or-later", "https://wiki.syslinux.org"}
	projectShim     = project{"shim", "BSD-2-Clause", "https://github.com/rhboot/shim"}
)

// projects are the projects that a bundle's bases come from.
func (b Bundle) projects() []project {
	var out []project
	seen := map[project]bool{}
	for _, base := range b.Bases {
		if p := base.Kind.project(); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// describe fills in the terms and where the source is.
func (b *Bundle) describe(source string) {
	for i, p := range b.projects() {
		if i > 0 {
			b.Origin.License += "; "
			source += "; "
		}
		b.Origin.License += p.name + ": " + p.license
		source += p.name + " is at " + p.upstream
	}
	b.Origin.Source = source
}
