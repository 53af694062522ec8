package single

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

// TestScript holds for both files: what one takes the other takes.
func TestScript(t *testing.T) {
	efi, kernel := amd64(t), lkrn(5000)
	full := shebang + strings.Repeat("#", maxScript-len(shebang)-1) + "\n"
	for name, tt := range map[string]struct{ script, want string }{
		"smallest":         {shebang, ""},
		"largest":          {full, ""},
		"odd length":       {"#!ipxe\nshell\n", ""},
		"too long":         {full + "\n", "more than 65536"},
		"empty":            {"", "want the line #!ipxe"},
		"no first line":    {"echo x\n", "want the line #!ipxe"},
		"other first line": {"#!ipxe2\n", "want the line #!ipxe"},
		"carriage return":  {"#!ipxe\r\necho\r\n", "want the line #!ipxe"},
		"a CR further on":  {"#!ipxe\necho\necho\r\n", "script line 3 holds the byte 0x0d"},
		"UTF-8":            {"#!ipxe\necho \u00fc\n", "script line 2 holds the byte 0xc3"},
		"NUL":              {"#!ipxe\necho \x00\n", "script line 2 holds the byte 0x00"},
		"a line cut short": {"#!ipxe\necho", "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			e, errEFI := EFI(boot.AMD64, efi, []byte(tt.script))
			b, errBIOS := BIOS(kernel, []byte(tt.script))
			if tt.want != "" {
				require.ErrorContains(t, errEFI, tt.want)
				require.ErrorContains(t, errBIOS, tt.want)
				return
			}
			require.NoError(t, errEFI)
			require.NoError(t, errBIOS)
			fromEFI, err := ReadEFI(e)
			require.NoError(t, err)
			require.Equal(t, tt.script, string(fromEFI.Script))
			fromBIOS, err := ReadBIOS(b)
			require.NoError(t, err)
			require.Equal(t, tt.script, string(fromBIOS.Script))
		})
	}
}
