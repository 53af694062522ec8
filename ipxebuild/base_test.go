package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
)

func TestReadBaseAndTrust(t *testing.T) {
	for machine, arch := range map[uint16]boot.Arch{pe.IMAGE_FILE_MACHINE_AMD64: boot.AMD64, pe.IMAGE_FILE_MACHINE_ARM64: boot.ARM64} {
		data := efi(t, machine, ipxe(t, "2.0.0"))
		b, err := ReadBase("ipxe.efi", data)
		require.NoError(t, err)
		require.Equal(t, arch, b.Arch)
		require.Equal(t, KindEFI, b.Kind)
		require.Equal(t, "2.0.0", b.Version)
		require.Equal(t, sha256.Sum256(data), b.SHA256)
		require.Equal(t, []string{"ntp"}, b.lacks)
		root := sha256.Sum256([]byte("our root"))
		patched := b.patch(root)
		require.Equal(t, bytes.Replace(data, fingerprint(t), root[:], 1), patched, "32 bytes change and no others")
		require.Equal(t, 1, bytes.Count(data, fingerprint(t)), "the stock binary must stay as it is")
	}
}

func TestReadBaseRefuses(t *testing.T) {
	const amd64 = pe.IMAGE_FILE_MACHINE_AMD64
	good := efi(t, amd64, ipxe(t, "2.0.0"))
	driver := bytes.Clone(good)
	driver[0x40+4+20+68] = pe.IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER
	signed := sign(good)
	for name, tt := range map[string]struct {
		file string
		data []byte
		want string
	}{
		"empty":               {"snponly.efi", nil, "is not a UEFI program"},
		"text":                {"snponly.efi", []byte("#!ipxe\n"), "is not a UEFI program"},
		"no fingerprint":      {"snponly.efi", efi(t, amd64, []byte("nothing")), "0 times instead of once"},
		"two fingerprints":    {"snponly.efi", efi(t, amd64, append(ipxe(t, "2.0.0"), fingerprint(t)...)), "2 times instead of once"},
		"no script name":      {"snponly.efi", efi(t, amd64, append([]byte("iPXE\x002.0.0\x00"), fingerprint(t)...)), "does not hold the name autoexec.ipxe"},
		"no version":          {"snponly.efi", efi(t, amd64, ipxe(t, "unknown")), "does not say which version"},
		"two versions":        {"snponly.efi", efi(t, amd64, append(ipxe(t, "2.0.0"), "iPXE\x003.0.0\x00"...)), "does not say which version"},
		"cut short":           {"snponly.efi", good[:len(good)-1], "cut short"},
		"signature cut short": {"snponly.efi", signed[:len(signed)-1], "cut short"},
		"only headers":        {"snponly.efi", good[:0x100], "is not a UEFI program"},
		"32-bit machine":      {"snponly.efi", efi(t, pe.IMAGE_FILE_MACHINE_I386, ipxe(t, "2.0.0")), "neither x86-64 nor arm64"},
		"other architecture":  {"ipxe-arm64.efi", good, "is a program for x86_64"},
		"a driver":            {"snponly.efi", driver, "not a 64-bit EFI application"},
		"too large":           {"snponly.efi", make([]byte, maxBase+1), "more than any boot program"},
		"unknown name":        {"grub.efi", good, "is not the name of a binary"},
		"kpxe":                {"undionly.kpxe", good, "is not a BIOS iPXE"},
		"lkrn":                {"ipxe.lkrn", nil, "is not a BIOS iPXE"},
		"unsigned shim":       {"shimx64.efi", good, "not a signed shim"},
		"shim of something":   {"shimx64.efi", signed, "not a shim that starts ipxe.efi"},
		"pxelinux":            {"lpxelinux.0", []byte("PXELINUX 6.04 20250413"), "is not an lpxelinux.0"},
		"ldlinux":             {"ldlinux.c32", []byte("\x7fELF\x02\x01"), "is not a 32-bit ELF module"},
		"isolinux":            {"isolinux.bin", make([]byte, 4096), "is not an isolinux.bin"},
		"mbr":                 {"isohdpfx.bin", make([]byte, 512), "boot code"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadBase(tt.file, tt.data)
			require.ErrorContains(t, err, tt.file)
			require.ErrorContains(t, err, tt.want)
			if kinds[tt.file] != "" {
				require.ErrorContains(t, err, "Debian", "the error must name the fix")
			}
		})
	}
}

// TestStockBinaries takes the binaries that machines really boot.
func TestStockBinaries(t *testing.T) {
	for _, b := range bundles(t)[:2] {
		require.Len(t, b.Bases, 5, b.Origin.File)
		for _, base := range b.Bases {
			require.Equal(t, b.Origin.Version, base.Version, base.Name)
			code, pointer := base.Data, biosPointer
			if base.image != nil {
				code = base.image.Payload()
			} else {
				p, err := readPE(code)
				require.NoError(t, err)
				pointer = p.pointer
				require.Len(t, scriptNames(code), 2, base.Name)
			}
			found, ok := locateRoot(code, pointer)
			require.True(t, ok, "%s of %s: the root must be found without knowing it", base.Name, base.Version)
			require.Equal(t, fingerprint(t), found[:])
			wantNTP := base.Version == v2 && base.Kind == KindEFI
			require.Equal(t, wantNTP, base.lack([]string{"ntp"}) == "", "%s of %s", base.Name, base.Version)
			require.Empty(t, base.lack([]string{"vcreate", "iflinkwait"}))
			for _, command := range []string{"dhcp", "chain", "iseq", "isset", "inc", "sleep", "goto", "echo", "exit", "ifopen", "sanboot"} {
				if base.Kind != KindEFI || command != "sanboot" {
					require.True(t, bytes.Contains(code, []byte(command+"\x00")), "%s of %s has no %s", base.Name, base.Version, command)
				}
			}
			_, err := ReadBase(base.Name, base.Data[:len(base.Data)/2])
			require.Error(t, err, "cut short")
		}
	}
}

// TestShim takes a shim that Microsoft signed.
func TestShim(t *testing.T) {
	dir := lab.Need(t).ShimDir()
	data, err := os.ReadFile(filepath.Join(dir, "shimx64.efi.signed"))
	require.NoError(t, err)
	b, err := ReadBase("shimx64.efi.signed", data)
	require.NoError(t, err)
	require.Equal(t, KindShim, b.Kind)
	require.Equal(t, "grubx64.efi", b.partner)
}

func TestReadBaseTakesSignedAsTheyAre(t *testing.T) {
	b, err := ReadBase("ipxe.efi", sign(efi(t, pe.IMAGE_FILE_MACHINE_AMD64, []byte("\n,iPXE,ipxe.efi,2.0.0,https://ipxe.org\n"))))
	require.NoError(t, err)
	require.Equal(t, KindSigned, b.Kind)
	require.Equal(t, "2.0.0", b.Version)
	b, err = ReadBase("shimx64.efi", sign(efi(t, pe.IMAGE_FILE_MACHINE_AMD64, utf16("\x00ipxe.efi\x00"))))
	require.NoError(t, err)
	require.Equal(t, "ipxe.efi", b.partner)
}

func FuzzReadBase(f *testing.F) {
	f.Add("snponly.efi", efi(f, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(f, "2.0.0")))
	f.Add("ipxe.efi", sign(efi(f, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(f, "2.0.0"))))
	f.Add("ipxe-arm64.efi", efi(f, pe.IMAGE_FILE_MACHINE_ARM64, ipxe(f, "2.0.0"))[:0x1f0])
	f.Add("undionly.kpxe", []byte("MZ"))
	f.Add("ldlinux.c32", []byte("\x7fELF\x01\x01"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		b, err := ReadBase(name, data)
		if err != nil {
			return
		}
		require.NotEmpty(t, b.Kind)
		if b.Kind == KindEFI {
			root := sha256.Sum256(nil)
			require.Len(t, b.patch(root), len(data))
			require.NotEmpty(t, b.Version)
		}
	})
}
