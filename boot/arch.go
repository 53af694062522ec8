package boot

import "fmt"

// Arch is a processor architecture as iPXE's ${buildarch} names it.
type Arch string

// The architectures that images exist for.
const (
	AMD64 Arch = "x86_64"
	ARM64 Arch = "arm64"
)

// ParseArch reads the value of ${buildarch}. A 32-bit x86 build of iPXE
// (undionly.kpxe calls itself i386) runs on 64-bit machines and boots 64-bit
// kernels, so it counts as AMD64.
func ParseArch(s string) (Arch, error) {
	switch s {
	case "x86_64", "i386":
		return AMD64, nil
	case "arm64":
		return ARM64, nil
	}
	return "", fmt.Errorf("architecture %s is not known: want x86_64, i386 or arm64", Excerpt(s, 40))
}

// Platform is the kind of firmware as iPXE's ${platform} names it.
type Platform string

// The platforms that iPXE runs on.
const (
	EFI  Platform = "efi"
	BIOS Platform = "pcbios"
)

// ParsePlatform reads the value of ${platform}.
func ParsePlatform(s string) (Platform, error) {
	switch p := Platform(s); p {
	case EFI, BIOS:
		return p, nil
	}
	return "", fmt.Errorf("platform %s is not known: want efi or pcbios", Excerpt(s, 40))
}
