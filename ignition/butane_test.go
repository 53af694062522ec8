package ignition

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const head = "variant: flatcar\nversion: 1.0.0\n"

func TestCompileRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ butane, want string }{
		"empty":         {"", "file is empty"},
		"no mapping":    {"- a\n", "file is not a YAML mapping: begin with variant: flatcar"},
		"binary":        {"\x00", "yaml: control characters are not allowed"},
		"no variant":    {"version: 1.0.0\n", `variant is "": write variant: flatcar`},
		"wrong variant": {"variant: fcos\nversion: 1.5.0\n", `variant is "fcos": write variant: flatcar`},
		"no version":    {"variant: flatcar\n", `version is "": write version: 1.0.0 (ignition 3.3) or 1.1.0 (ignition 3.4)`},
		"newer version": {
			"variant: flatcar\nversion: 1.2.0-experimental\n",
			`version is "1.2.0-experimental": write version: 1.0.0 (ignition 3.3) or 1.1.0 (ignition 3.4)`,
		},
		"tab":             {head + "storage:\n\tfiles: []\n", "yaml: line 4: found character that cannot start any token"},
		"wrong type":      {head + "storage:\n  files: 3\n", "yaml: unmarshal errors:\n  line 4: cannot unmarshal !!int `3` into []v0_4.File"},
		"key given twice": {head + "storage: {}\nstorage: {}\n", "yaml: unmarshal errors:\n  line 4: mapping key \"storage\" already defined at line 3"},
		"second document": {
			head + "---\n" + head,
			"file has a second YAML document, which would be ignored: remove it with its --- line",
		},
		"unknown keys, all of them": {
			head + "storage:\n  filez: []\n  files:\n    - path: /a\n      modus: 3\n",
			"line 4, column 3: $.storage.filez: unused key filez\nline 7, column 7: $.storage.files.0.modus: unused key modus",
		},
		"key of a newer version": {
			head + "systemd:\n  units:\n    - name: a.service\n      contents_local: a\n",
			"line 6, column 7: $.systemd.units.0.contents_local: unused key contents_local",
		},
		"warning": {
			head + "systemd:\n  units:\n    - name: a.service\n      enabled: true\n      contents: |\n        [Service]\n        ExecStart=/bin/true\n",
			`line 7, column 17: $.systemd.units.0.contents: unit "a.service" is enabled, but has no install section so enable does nothing`,
		},
		"special mode bits": {
			head + "storage:\n  files:\n    - path: /a\n      mode: 04755\n",
			"line 6, column 13: $.storage.files.0.mode: setuid/setgid/sticky bits are not supported or functional in spec versions older than 3.6.0",
		},
		"duplicate path": {
			head + "storage:\n  files:\n    - path: /a\n    - path: /a\n",
			"line 6, column 7: $.storage.files.1: duplicate entry defined",
		},
		"local file": {
			head + "storage:\n  files:\n    - path: /a\n      contents:\n        local: /etc/shadow\n",
			"line 7, column 16: $.storage.files.0.contents.local: no other file is read from here: write the content into this file (inline: or contents:) or give a URL (source:)",
		},
		"local tree": {
			head + "storage:\n  trees:\n    - local: /etc\n",
			"line 5, column 7: $.storage.trees.0: no other file is read from here: write the content into this file (inline: or contents:) or give a URL (source:)",
		},
		"alias": {
			head + "storage: &s\n  files: []\npasswd: *s\n",
			"line 5, column 9: alias *s: aliases are not supported, write the value out",
		},
		"our directory": {
			head + "storage:\n  files:\n    - path: /etc/nestboot/root.pem\n    - path: /etc/nestboots\n",
			"path /etc/nestboot/root.pem belongs to nestboot: choose another",
		},
		"our directory as a link": {
			head + "storage:\n  links:\n    - path: /etc/nestboot\n      target: /tmp\n",
			"path /etc/nestboot belongs to nestboot: choose another",
		},
		"link above ours": {
			head + "storage:\n  links:\n    - path: /etc\n      target: /tmp\n",
			"link /etc would lead nestboot's files astray: remove it",
		},
		"our unit": {
			head + "systemd:\n  units:\n    - name: nestboot-done.service\n      mask: true\n",
			"unit nestboot-done.service is written by nestboot: choose another name",
		},
		"drop-in of our unit as a file": {
			head + "storage:\n  directories:\n    - path: /etc/systemd/system/nestboot-done.service.d\n",
			"path /etc/systemd/system/nestboot-done.service.d belongs to nestboot: choose another",
		},
		"replace": {
			head + "ignition:\n  config:\n    replace:\n      source: https://config.example.com/a.ign\n",
			"ignition.config.replace would drop hostname and phone-home: use ignition.config.merge",
		},
	} {
		t.Run(name, func(t *testing.T) {
			base, err := Compile([]byte(tt.butane))
			require.EqualError(t, err, "compile butane: "+tt.want)
			require.Empty(t, base)
		})
	}
}

// Files that would cost more than they weigh are refused for their shape, before a library walks them.
func TestCompileIsBounded(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString(head + "a0: &a0 [x, x]\n")
	for i := range 30 {
		fmt.Fprintf(&bomb, "a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	for name, tt := range map[string]struct{ butane, want string }{
		"size":    {head + strings.Repeat("#", MaxButane), "file has 1048608 bytes, the limit is 1048576: move large contents behind a URL (source:)"},
		"aliases": {bomb.String(), "line 4, column 10: alias *a0: aliases are not supported, write the value out"},
		"values":  {head + "storage: {files: [" + strings.Repeat("{path: /a},", 9000) + "]}", "line 3: file has more than 20000 YAML values: move files into an archive behind a URL"},
		"keys":    {head + strings.Repeat("x:\n", 200_000), "line 1, column 1: mapping has more than 100 keys"},
		"depth":   {head + "a: " + strings.Repeat("[", 500_000), "yaml: line 3: exceeded max depth of 10000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile([]byte(tt.butane))
			require.EqualError(t, err, "compile butane: "+tt.want)
		})
	}
}

func TestFaultsAreCutShort(t *testing.T) {
	_, err := Compile([]byte(head + "storage: {files: [" + strings.Repeat("{path: a},", 50) + "]}"))
	require.ErrorContains(t, err, "\nand 79 more")
	require.Equal(t, maxFaults, strings.Count(err.Error(), "\n"))
}

func FuzzCompile(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.bu")
	require.NoError(f, err)
	for _, seed := range seeds {
		raw, err := os.ReadFile(seed)
		require.NoError(f, err)
		f.Add(raw)
	}
	v := values(f)
	f.Fuzz(func(t *testing.T, butane []byte) {
		base, err := Compile(butane)
		if err != nil {
			require.Empty(t, base)
			return
		}
		raw, err := base.Render(v)
		require.NoError(t, err, "what compiles must be servable")
		require.Equal(t, v.Hostname+"\n", content(parse(t, raw), hostnamePath))
	})
}
