package single

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets into a kernel file (Linux, Documentation/arch/x86/boot.rst).
const (
	atSetupSects  = 0x1f1
	atSysSize     = 0x1f4
	atBootFlag    = 0x1fe
	atHdrS        = 0x202
	atVersion     = 0x206
	atLoaderType  = 0x210
	atLoadFlags   = 0x211
	atRamdisk     = 0x218
	atRamdiskSize = 0x21c
	atInitrdMax   = 0x22c
	endOfSetup    = 0x400
)

const (
	typeOther  = 0xff // a boot loader without a number of its own
	loadedHigh = 0x01 // the protected-mode part belongs at 1 MB
)

// kernel is what the packer needs to know of a kernel file.
type kernel struct {
	real int // bytes of the real-mode part at the start of the file
}

// readKernel checks that data is a Linux-like kernel as iPXE makes it, whole
// and untouched by a boot loader.
func readKernel(data []byte) (kernel, error) {
	const fix = "want ipxe.lkrn as Debian's package ipxe 1.21.1 or newer ships it"
	le := binary.LittleEndian
	if len(data) < endOfSetup || le.Uint16(data[atBootFlag:]) != 0xaa55 || string(data[atHdrS:atHdrS+4]) != "HdrS" {
		return kernel{}, errors.New("not a Linux-like kernel: " + fix)
	}
	k := kernel{real: (int(data[atSetupSects]) + 1) * 512}
	if v := le.Uint16(data[atVersion:]); v < 0x0203 || data[atLoadFlags]&loadedHigh == 0 {
		return kernel{}, fmt.Errorf("kernel of boot protocol %#x, loaded low or before initrd limits: %s", v, fix)
	}
	if k.real < endOfSetup || k.real > maxReal || k.real >= len(data) {
		return kernel{}, fmt.Errorf("kernel's real-mode part has %d of %d bytes: %s", k.real, len(data), fix)
	}
	if want := uint64(up(len(data)-k.real, 16) / 16); uint64(le.Uint32(data[atSysSize:])) != want {
		return kernel{}, fmt.Errorf("kernel says it has %d units of 16 bytes, the file holds %d: it is cut short or badly repacked",
			le.Uint32(data[atSysSize:]), want)
	}
	if le.Uint32(data[atInitrdMax:]) < scriptAddr+maxScript {
		return kernel{}, fmt.Errorf("kernel takes no initrd above %#x: %s", le.Uint32(data[atInitrdMax:]), fix)
	}
	if getLoader(data) != (loader{}) {
		return kernel{}, errors.New("kernel's header was already filled in by a boot loader: " + fix)
	}
	return k, nil
}

// loader is what a boot loader writes into a kernel's header.
type loader struct {
	kind          uint8
	ramdisk, size uint32
}

func getLoader(data []byte) loader {
	le := binary.LittleEndian
	return loader{data[atLoaderType], le.Uint32(data[atRamdisk:]), le.Uint32(data[atRamdiskSize:])}
}

func setLoader(data []byte, l loader) {
	data[atLoaderType] = l.kind
	binary.LittleEndian.PutUint32(data[atRamdisk:], l.ramdisk)
	binary.LittleEndian.PutUint32(data[atRamdiskSize:], l.size)
}
