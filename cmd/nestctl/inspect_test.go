package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild"
)

func TestPrintReport(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	r := ipxebuild.Report{
		Format: "iso", Version: "2.0.0", Set: "rack1", HoldsKey: true, Root: "9faf", URL: "https://ipxe.example.com",
		Subject: "CN=\x1b[2Jrack1", Expires: now.Add(-time.Hour),
		Parts: []ipxebuild.Report{
			{Path: "EFI/BOOT/BOOTX64.EFI", Format: "efi_amd64", Expires: now.Add(73 * time.Hour)},
			{Path: "isolinux.bin", Format: "isolinux"},
		},
	}
	var b strings.Builder
	require.NoError(t, printReport(&b, r, now))
	require.Equal(t, `Format:       iso
iPXE:         2.0.0
Trust root:   9faf
Set:          rack1
URL:          https://ipxe.example.com
Certificate:  CN=`+"\ufffd"+`[2Jrack1
Expires:      2026-11-21T02:00:00Z WARNING: expired, machines with it are refused
Private key:  INSIDE: whoever has this file can boot as its machines

Part:         EFI/BOOT/BOOTX64.EFI
Format:       efi_amd64
Certificate:  none
Expires:      2026-11-24T04:00:00Z (in 3 days)
Private key:  none inside

Part:         isolinux.bin
Format:       isolinux
Certificate:  none
Private key:  none inside
`, b.String())
}

func TestInspectStockBinary(t *testing.T) {
	m := lab.Need(t)
	for _, name := range []string{"snponly.efi", "undionly.kpxe", "ipxe.lkrn"} {
		out, err := nestctl(t, nil, "inspect", m.IPXE(name))
		require.NoError(t, err, name)
		require.Contains(t, out, "1.21.1", name)
		require.Contains(t, out, "Trust root:   stock", name)
		require.Contains(t, out, "none inside", name)
	}
}

func TestInspectRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"empty": "", "text": "hello\n", "script": "#!/bin/sh\n", "mz": "MZ"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
		_, err := nestctl(t, nil, "inspect", path)
		require.ErrorContains(t, err, path, "the error names the file")
	}
	large := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(large, nil, 0o600))
	require.NoError(t, os.Truncate(large, maxArtifact+1)) // sparse
	_, err := nestctl(t, nil, "inspect", large)
	require.ErrorContains(t, err, "more than 67108864 bytes")
	_, err = nestctl(t, nil, "inspect", filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = nestctl(t, nil, "inspect", "-o", "xml", large)
	require.ErrorContains(t, err, "want table or json")
}
