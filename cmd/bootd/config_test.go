package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
)

const example = "../../docs/bootd.yaml"

func TestExampleIsGoodAndShowsEverySetting(t *testing.T) {
	_, err := loadConfig(example)
	require.NoError(t, err)
	text, err := os.ReadFile(example)
	require.NoError(t, err)
	var missing []string
	for _, name := range settings(reflect.TypeFor[Config]()) {
		if !strings.Contains(string(text), name+":") {
			missing = append(missing, name)
		}
	}
	require.Empty(t, missing)
}

// settings lists the yaml names of a struct and of those inside it.
func settings(t reflect.Type) []string {
	for t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var all []string
	for name, ft := range yamlFields(t) {
		all = append(append(all, name), settings(ft)...)
	}
	return all
}

func TestDefaultsAreWhatTheExampleSays(t *testing.T) {
	want, err := loadConfig(example)
	require.NoError(t, err)
	got := Config{}.withDefaults("/")
	require.Equal(t, want.StateDir, got.StateDir)
	require.Equal(t, want.Listen, got.Listen)
	require.Equal(t, want.Reserve, got.Reserve)
	require.Equal(t, want.Log, got.Log)
	require.Equal(t, want.Grace, got.Grace)
	require.Nil(t, got.Artifacts.Bases)
	require.Subset(t, want.Artifacts.Bases, ipxebuild.DebianBases("/"), "as far as they are installed here")
}

func TestPathsStartAtTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bootd.yaml")
	require.NoError(t, os.WriteFile(path, []byte("domain: example.com\nstate_dir: s\nbutane: b\nimages: [{name: i, kernel: k, initrds: [/abs, rel]}]\nartifacts: {bases: [ipxe.deb]}\n"), 0o600))
	cfg, err := loadConfig(path)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "s"), cfg.StateDir)
	require.Equal(t, filepath.Join(dir, "s", "admin.sock"), cfg.Listen.Admin)
	require.Equal(t, filepath.Join(dir, "k"), cfg.Images[0].Kernel)
	require.Equal(t, []string{filepath.Join(dir, "ipxe.deb")}, cfg.Artifacts.Bases)
	require.Equal(t, []string{"/abs", filepath.Join(dir, "rel")}, cfg.Images[0].Initrds)
	require.Equal(t, "i", cfg.DefaultImage, "the only image is the default")
}

func TestValidateNamesEveryFault(t *testing.T) {
	good := Config{Domain: "example.com"}.withDefaults("/")
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*Config){
		"domain:":                          func(c *Config) { c.Domain = "" },
		"artifacts.bases: a path is empty": func(c *Config) { c.Artifacts.Bases = []string{""} },
		"grace_seconds":                    func(c *Config) { c.Grace = -1 },
		"reserve_mib":                      func(c *Config) { c.Reserve = -1 },
		"keys: passphrase_file and credential are set": func(c *Config) { c.Keys = Keys{PassphraseFile: "a", Credential: "b"} },
		"keys.credential is":                           func(c *Config) { c.Keys.Credential = "../x" },
		"authority: wants both":                        func(c *Config) { c.Authority.Key = "a" },
		"authority.step_ca.root: is required":          func(c *Config) { c.Authority.StepCA.URL = "https://ca" },
		"certificates[0]: wants both":                  func(c *Config) { c.Certificates = []Certificate{{Key: "a"}} },
		"listen.legacy_https":                          func(c *Config) { c.Listen.LegacyHTTPS = "8443" },
		"log.level":                                    func(c *Config) { c.Log.Level = "loud" },
		"log.format":                                   func(c *Config) { c.Log.Format = "xml" },
		"listen.tftp":                                  func(c *Config) { c.Listen.TFTP = "69" },
		"listen.http":                                  func(c *Config) { c.Listen.HTTP = "host:80" },
		"listen.https":                                 func(c *Config) { c.Listen.HTTPS = ":https" },
		"listen.metrics":                               func(c *Config) { c.Listen.Metrics = ":9090" },
		"tftp.sockets: 17 is not":                      func(c *Config) { c.TFTP.Sockets = 17 },
		"tftp.dscp: 64 is not":                         func(c *Config) { c.TFTP.DSCP = 64 },
		"tftp.transfers: -1 is not":                    func(c *Config) { c.TFTP.Transfers = -1 },
		"tftp.per_address":                             func(c *Config) { c.TFTP.PerAddress = 60001 },
		"tftp.unanswered":                              func(c *Config) { c.TFTP.Unanswered = 60001 },
		"tftp.network_replies: 2 is not":               func(c *Config) { c.TFTP.NetworkReplies = 2 },
		"tftp.total_replies":                           func(c *Config) { c.TFTP.TotalReplies = 2 },
		"tftp.interfaces: \"\" is empty":               func(c *Config) { c.TFTP.Interfaces = []string{""} },
		"tftp.interfaces: \"a\"":                       func(c *Config) { c.TFTP.Interfaces = []string{"a", "a"} },
		"default_image: there is no image":             func(c *Config) { c.DefaultImage = "gone" },
		"machines[0].uuid":                             func(c *Config) { c.Machines = []Machine{{}} },
		"machines[0].name":                             func(c *Config) { c.Machines = []Machine{{Name: "a b"}} },
		"machines[0].image: there is no":               func(c *Config) { c.Machines = []Machine{{Image: "gone"}} },
		"images[0].name":                               func(c *Config) { c.Images = []Image{{Name: "../x"}} },
		"images[0].arch":                               func(c *Config) { c.Images = []Image{{Arch: "vax"}} },
		"images[0].args: kernel argument":              func(c *Config) { c.Images = []Image{{Args: []string{`a"b`}}} },
		"images[1].name: image x is there":             func(c *Config) { c.Images = []Image{{Name: "x"}, {Name: "x"}} },
		"machines[1].uuid: machine 4c4c4544": func(c *Config) {
			c.Machines = []Machine{{UUID: "4c4c4544-0042-3510-8052-b4c04f564433"}, {UUID: "4C4C4544-0042-3510-8052-B4C04F564433"}}
		},
	} {
		t.Run(want, func(t *testing.T) {
			c := good
			change(&c)
			require.ErrorContains(t, c.Validate(), want)
		})
	}
}

func TestNearest(t *testing.T) {
	fields := yamlFields(reflect.TypeFor[Config]())
	require.Equal(t, `; did you mean "state_dir"?`, nearest("statedir", fields))
	require.Equal(t, `; did you mean "images"?`, nearest("image", fields))
	require.Empty(t, nearest("zzzzzzzzz", fields))
}

// FuzzConfig checks that no configuration, however broken, does more than be
// refused.
func FuzzConfig(f *testing.F) {
	text, err := os.ReadFile(example)
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte("domain: &a [*a]"))
	f.Add([]byte("listen: {tftp: [1]}\n? x\n: y"))
	f.Add([]byte("a: &a [1,2]\nb: &b [*a,*a]\nc: [*b,*b]"))
	f.Add([]byte("<<: {domain: x}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var cfg Config
		if decodeStrict(data, &cfg) != nil {
			return
		}
		_ = cfg.withDefaults("/").Validate()
	})
}

func TestREADMEsConfigurationIsGood(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "```yaml\n")
	require.True(t, found)
	text, _, found := strings.Cut(rest, "```")
	require.True(t, found)
	path := filepath.Join(t.TempDir(), "bootd.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	_, err = loadConfig(path)
	require.NoError(t, err)
}

// TestManualHasTheStepTemplate keeps the manual's template the one that works.
func TestManualHasTheStepTemplate(t *testing.T) {
	manual, err := os.ReadFile("../../docs/trust.md")
	require.NoError(t, err)
	require.Contains(t, string(manual), "```\n"+pki.StepTemplate+"```\n")
}

// TestCheckConfigRefusesWhatTheStartRefuses has certificates and keys that can be
// read and are no good.
func TestCheckConfigRefusesWhatTheStartRefuses(t *testing.T) {
	corp := newCorporate(t, "Corporate CA")
	withoutRoot := corp.server("*.test")
	withoutRoot.Certificate = withoutRoot.Certificate[:1]
	own := tls.Certificate{Certificate: [][]byte{corp.cert.Raw}, PrivateKey: corp.key}
	for name, tt := range map[string]struct{ setting, file, want string }{
		"another name":          {"certificates: [{certificate: f, key: f}]", pairPEM(t, corp.server("*.other")), "none of that is a name of test"},
		"no root":               {"certificates: [{certificate: f, key: f}]", pairPEM(t, withoutRoot), "append the certificate of CN=Corporate CA"},
		"passphrase":            {"keys: {passphrase_file: f}", "short", "the passphrase has 5 bytes"},
		"root as the authority": {"authority: {certificate: f, key: f}", pairPEM(t, own), "let the root issue an intermediate"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, tt.setting+"\n")
			d.write("f", tt.file)
			require.Contains(t, d.refused(), tt.want)
			cfg, err := loadConfig(d.config)
			require.NoError(t, err)
			require.ErrorContains(t, checkFiles(t.Context(), cfg, slog.New(slog.DiscardHandler)), tt.want)
			require.NoError(t, os.Chmod(filepath.Join(d.dir, "f"), 0o644))
			require.ErrorContains(t, checkKeyFiles(cfg), "(mode 0644)")
		})
	}
}
