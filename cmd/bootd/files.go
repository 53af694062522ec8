package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"regexp"
	"time"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/httpboot"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/pki/links"
	"github.com/nestboot/nestboot/tftp"
)

// openTFTP serves the files of sets, but of a set with a key only if its
// operator chose so (T14).
func (s *site) openTFTP(ctx context.Context, name string, client netip.AddrPort) (*io.SectionReader, error) {
	f, err := s.sets.File(ctx, name, artifact.TFTP)
	var w *artifact.Withheld
	switch {
	case errors.As(err, &w):
		e := boot.Event{Stage: boot.StageArtifact, Addr: client.Addr().Unmap(), Name: name, Code: w.Code, Error: w.Error()}
		message := w.Reason
		if w.Code == artifact.CodeNotExposed {
			e.Stage, message = boot.StageKey, "holds a private key: "+w.Fix // 120 bytes reach the console
		}
		s.record(e)
		return nil, &tftp.Refusal{Code: 2, Message: message}
	case err != nil:
		return nil, err
	}
	return io.NewSectionReader(tftp.Memory(f.Data), 0, int64(len(f.Data))), nil
}

// openHTTP serves the files of sets to whoever asks by name.
func (s *site) openHTTP(ctx context.Context, name string, secure bool) (httpboot.Artifact, error) {
	over := artifact.HTTP
	if secure {
		over = artifact.HTTPS
	}
	return asArtifact(s.sets.File(ctx, name, over))
}

// download serves the files of sets to whoever has a set's address.
func (s *site) download(ctx context.Context, token, name string) (httpboot.Artifact, error) {
	f, err := s.sets.Download(ctx, token, name)
	if errors.Is(err, artifact.ErrUnknownToken) {
		err = &pki.Refusal{Code: pki.CodeUnknownToken, Reason: err.Error()}
	}
	return asArtifact(f, err)
}

// uefi serves the EFI files of a set to whoever has one of its UEFI HTTP Boot
// URLs, and beside them the set's script, under the name that iPXE asks for.
// That the URL was made is the choice to expose them, so the set's own exposure
// is not asked.
func (s *site) uefi(ctx context.Context, token, name string, secure bool) (httpboot.Artifact, pki.Identity, error) {
	over := links.HTTP
	if secure {
		over = links.HTTPS
	}
	id, link, err := s.who.links.Find(links.UEFI, token, over, time.Now())
	if err != nil {
		return httpboot.Artifact{}, id, err
	}
	set, ok := s.sets.Get(link.Set)
	if !ok || set.Status == artifact.Deleting { // its URLs end with it
		return httpboot.Artifact{}, id, fs.ErrNotExist
	}
	switch set.Status {
	case artifact.Failed: // it says why
		a, err := asArtifact(s.sets.Render(ctx, link.Set, name))
		return a, id, err
	case artifact.Expired:
		reason := fmt.Sprintf("set %s has expired; to change that: nestctl artifact delete %s, then create", set.Spec.Name, set.Spec.Name)
		return httpboot.Artifact{}, id, &httpboot.Withheld{Code: artifact.CodeExpired, Reason: reason}
	}
	for _, f := range set.Files {
		efi := f.Name == name && (f.Format == ipxebuild.FormatEFIAMD64 || f.Format == ipxebuild.FormatEFIARM64)
		if !efi && (name != ipxebuild.ScriptName || f.Format != ipxebuild.FormatChain) {
			continue
		}
		if efi {
			s.who.links.Used(links.UEFI, link.ID, "", time.Now())
		}
		a, err := asArtifact(s.sets.Render(ctx, link.Set, f.Name))
		return a, id, err
	}
	return httpboot.Artifact{}, id, fs.ErrNotExist
}

func asArtifact(f artifact.File, err error) (httpboot.Artifact, error) {
	var w *artifact.Withheld
	if errors.As(err, &w) {
		err = &httpboot.Withheld{Code: w.Code, Reason: w.Error()}
	}
	return httpboot.Artifact{Data: f.Data, SHA256: f.SHA256}, err
}

// probes are names that loaders ask for on the chance that they are there:
// pxelinux tries about ten configurations at each boot, iPXE a script beside
// itself. That they are not is nobody's fault.
var probes = regexp.MustCompile(`(^|/)(pxelinux\.cfg/.*|[0-9a-f]{8}\.ipxe|autoexec\.ipxe)$`)

func tftpEvent(stage boot.Stage, t tftp.Transfer) boot.Event {
	e := boot.Event{Stage: stage, MAC: t.MAC.String(), Addr: t.Client.Addr().Unmap(), Name: t.Name, Bytes: t.Bytes, Duration: t.Duration}
	switch {
	case t.Err == nil:
		if stage == boot.StageTFTPDone {
			e.Detail = fmt.Sprintf("blksize %d, windowsize %d, %d sent again", t.BlockSize, t.Window, t.Retransmits)
		}
	case errors.Is(t.Err, tftp.ErrSizeProbe):
		e.Detail = t.Err.Error() // OVMF does so before each download
	case errors.Is(t.Err, fs.ErrNotExist) && probes.MatchString(t.Name):
		e.Detail = "no such file; the loader asks on the chance"
	case errors.Is(t.Err, fs.ErrNotExist):
		e.Code, e.Error = "not-found", "no set has this file: nestctl artifact show lists the names"
	default:
		e.Code, e.Error = "tftp-failed", t.Err.Error()
	}
	return e
}
