package boot

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	uuidA = "4c4c4544-0042-3510-8052-b4c04f564433"
	macA  = "52:54:00:00:00:01"
)

func testInventory() Inventory {
	img := Image{
		Name: "flatcar", Arch: AMD64, Kernel: File{Name: "vmlinuz"},
		Initrds: []File{{Name: "0-initrd.gz"}, {Name: "1-oem.gz"}}, Args: []string{"console=ttyS0", "flatcar.first_boot=1"},
	}
	arm := img
	arm.Name, arm.Arch = "flatcar-arm", ARM64
	return Inventory{Default: "flatcar", Images: map[string]Image{"flatcar": img, "flatcar-arm": arm}, Machines: map[string]Machine{}}
}

func TestDecide(t *testing.T) {
	ask := Request{UUID: uuidA, MAC: macA, Arch: AMD64, Platform: EFI}
	with := func(m Machine) func(*Inventory) {
		return func(inv *Inventory) { m.UUID = uuidA; inv.Machines[uuidA] = m }
	}
	for _, tt := range []struct {
		name   string
		change func(*Inventory)
		arch   Arch
		action Action
		code   string
		image  string
		host   string
		why    []string
	}{
		{
			name: "unknown machine boots the default image", action: ActBoot, image: "flatcar", host: "m-525400000001",
			why: []string{
				"machine " + uuidA + " is not configured: defaults apply",
				`no name is set: "m-525400000001" from its MAC address`,
				"its policy is boot", `image "flatcar" is the default`, "image and machine are both x86_64",
			},
		},
		{
			name: "named machine", change: with(Machine{Name: "node1"}), action: ActBoot, image: "flatcar", host: "node1",
			why: []string{
				"machine " + uuidA + ` is configured as "node1"`, "its policy is boot",
				`image "flatcar" is the default`, "image and machine are both x86_64",
			},
		},
		{name: "policy refuse", change: with(Machine{Name: "n", Policy: PolicyRefuse}), action: ActRefuse, code: CodeDisabled, host: "n"},
		{name: "policy wait", change: with(Machine{Name: "n", Policy: PolicyWait}), action: ActWait, code: CodeHeld, host: "n"},
		{name: "policy local", change: with(Machine{Name: "n", Policy: PolicyLocal}), action: ActLocal, host: "n"},
		{name: "image of its own", change: with(Machine{Name: "n", Image: "flatcar-arm"}), arch: ARM64, action: ActBoot, image: "flatcar-arm", host: "n"},
		{name: "image for another processor", change: with(Machine{Name: "n", Image: "flatcar-arm"}), action: ActRefuse, code: CodeWrongArch, host: "n"},
		{name: "image that is not here", change: func(inv *Inventory) {
			inv.Images["flatcar"] = Image{Name: "flatcar", Arch: AMD64, Missing: "image flatcar is not here: nestctl image pull"}
		}, action: ActWait, code: CodeNoImage, host: "m-525400000001"},
		{name: "image that does not exist", change: with(Machine{Name: "n", Image: "gone"}), action: ActWait, code: CodeNoImage, host: "n"},
		{name: "no image at all", change: func(i *Inventory) { i.Default = "" }, action: ActWait, code: CodeNoImage, host: "m-525400000001"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv, r := testInventory(), ask
			if tt.change != nil {
				tt.change(&inv)
			}
			if tt.arch != "" {
				r.Arch = tt.arch
			}
			p := Decide(r, inv)
			require.Equal(t, tt.action, p.Action)
			require.Equal(t, tt.code, p.Code)
			require.Equal(t, tt.image, p.Image.Name)
			require.Equal(t, tt.host, p.Machine.Name)
			require.NotEmpty(t, p.Reason)
			require.NotEmpty(t, p.Why)
			if tt.why != nil {
				require.Equal(t, tt.why, p.Why)
			}
			if p.Action == ActWait || p.Action == ActRefuse {
				require.Positive(t, p.Retry, "a machine that may not boot must back off")
			}
			require.Equal(t, p, Decide(r, inv), "the same input must give the same plan")
		})
	}
}

func TestNotReadyServesNothingOfThePlan(t *testing.T) {
	p := Decide(Request{UUID: uuidA, MAC: macA, Arch: AMD64}, testInventory()).NotReady("no config")
	require.Equal(t, ActWait, p.Action)
	require.Equal(t, CodeNotReady, p.Code)
	require.Empty(t, p.Image)
	require.Contains(t, p.Why, "not ready: no config")
}

func TestPlanScripts(t *testing.T) {
	boots := Decide(Request{UUID: uuidA, MAC: macA, Arch: AMD64}, testInventory())
	held := testInventory()
	held.Machines[uuidA] = Machine{UUID: uuidA, Name: "n", Policy: PolicyWait}
	local := testInventory()
	local.Machines[uuidA] = Machine{UUID: uuidA, Name: "n", Policy: PolicyLocal}
	for name, p := range map[string]Plan{
		"boot":           boots,
		"wait":           Decide(Request{UUID: uuidA}, held),
		"queue":          boots.Queued(37, 12*time.Second),
		"queue-next":     boots.Queued(0, 5*time.Second),
		"local":          Decide(Request{UUID: uuidA}, local),
		"refusal-quoted": Refusal("bad-request", `arch "a || poweroff && # x ; y \`+strings.Repeat(" long", 99)),
		"refusal":        Refusal("bad-request", "mac \"x${y}\nz\" is not a MAC"),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.Script(Endpoint{Base: "https://ipxe.example.com", Boot: "0011223344556677"})
			require.NoError(t, err)
			golden(t, name+".ipxe", got)
		})
	}
}

func TestPlanScriptRefusesArgumentsWithAMeaning(t *testing.T) {
	for _, arg := range []string{"a b", "x\ny", `q="1"`, "${net0/ip}", "--name", "#c", "||", "&&", ";", "", `end\`} {
		inv := testInventory()
		img := inv.Images["flatcar"]
		img.Args = []string{arg}
		inv.Images["flatcar"] = img
		_, err := Decide(Request{UUID: uuidA, MAC: macA, Arch: AMD64}, inv).Script(Endpoint{Base: "https://b", Boot: "1"})
		require.Errorf(t, err, "argument %q", arg)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
