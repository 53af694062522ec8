package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"syscall"

	"github.com/nestboot/nestboot/artifact"
	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/httpboot"
	"github.com/nestboot/nestboot/ignition"
	"github.com/nestboot/nestboot/images"
	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/ipxebuild"
)

// catalogue is what the operator has decided, opened and checked: images,
// machines and the base of every Ignition config. It is immutable; a reload
// makes a new one or none.
type catalogue struct {
	inventory boot.Inventory
	images    map[string]*images.Image
	base      *ignition.Base // nil when there is no Butane file
}

// openCatalogue opens every image and compiles the Butane file. All faults are
// returned at once, and nothing stays open when there is one. A release that is
// not in the depot, or damaged, is no fault: its machines wait, and are told what
// to do.
func openCatalogue(ctx context.Context, cfg Config, stock *depot.Depot, log *slog.Logger) (*catalogue, error) {
	c := &catalogue{
		inventory: boot.Inventory{Default: cfg.DefaultImage, Images: map[string]boot.Image{}, Machines: map[string]boot.Machine{}},
		images:    map[string]*images.Image{},
	}
	var errs []error
	for _, i := range cfg.Images {
		if i.Release != "" {
			errs = append(errs, c.openRelease(ctx, i, stock, log))
			continue
		}
		img, err := images.Open(ctx, images.Spec{Name: i.Name, Kernel: i.Kernel, Initrds: i.Initrds})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.images[i.Name] = img
		c.inventory.Images[i.Name] = bootImage(i, img)
	}
	if cfg.Butane != "" {
		errs = append(errs, c.compile(cfg.Butane))
	}
	for _, m := range cfg.Machines {
		id, err := boot.ParseUUID(m.UUID)
		errs = append(errs, err)
		c.inventory.Machines[id] = boot.Machine{UUID: id, Name: m.Name, Policy: m.Policy, Image: m.Image}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// openRelease opens an image that is a release.
func (c *catalogue) openRelease(ctx context.Context, i Image, stock *depot.Depot, log *slog.Logger) error {
	r, err := i.ref()
	if err != nil {
		return err
	}
	img, m, err := stock.Image(ctx, i.Name, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil { // it may have come in a bundle
		if err = checkArgs(m.ID(), m.Args); err != nil {
			err = errors.Join(err, img.Close())
		}
	}
	if err != nil && passing(err) {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	if err != nil {
		log.WarnContext(ctx, "an image cannot be served, its machines wait", "image", i.Name, "err", err)
		c.inventory.Images[i.Name] = boot.Image{
			Name: i.Name, Arch: i.Arch,
			Missing: fmt.Sprintf("image %s is not here: nestctl image pull %s --arch %s, then reload bootd", i.Name, r, r.Arch),
		}
		return nil
	}
	i.Args = slices.Concat(m.Args, i.Args)
	c.images[i.Name] = img
	c.inventory.Images[i.Name] = bootImage(i, img)
	return nil
}

// passing tells what the system refuses just now, such as another open file or a
// right, from a release that is not here or damaged: to pull it would not help,
// and what runs is better than an image less.
func passing(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.ENOENT && errno != syscall.EIO
}

func (c *catalogue) compile(path string) error {
	data, err := readRegular(path)
	if err != nil {
		return fmt.Errorf("butane: %w", err)
	}
	base, err := ignition.Compile(data)
	if err != nil {
		return fmt.Errorf("butane %s: %w", path, err)
	}
	c.base = &base
	return nil
}

// readRegular reads a file that may hold what Butane may, and does not wait for
// a pipe.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: put it there, readable for the user that bootd runs as", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, ignition.MaxButane+1)) // Compile refuses what is longer
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

func (c *catalogue) close() error {
	var errs []error
	for _, img := range c.images {
		errs = append(errs, img.Close())
	}
	return errors.Join(errs...)
}

// file finds one file of an image for httpboot.
func (c *catalogue) file(image, name string) (httpboot.ImageFile, bool) {
	img, ok := c.images[image]
	if !ok {
		return httpboot.ImageFile{}, false
	}
	f, kernel, ok := img.File(name)
	if !ok {
		return httpboot.ImageFile{}, false
	}
	open := func() (io.ReadSeeker, error) { return f.Reader() }
	return httpboot.ImageFile{Kernel: kernel, SHA256: f.SHA256, Modified: f.Modified, Open: open}, true
}

func bootImage(i Image, img *images.Image) boot.Image {
	out := boot.Image{Name: i.Name, Arch: i.Arch, Args: i.Args, Kernel: boot.File{Name: img.Kernel.Name, Size: img.Kernel.Size}}
	for _, f := range img.Initrds {
		out.Initrds = append(out.Initrds, boot.File{Name: f.Name, Size: f.Size})
	}
	return out
}

// readBases reads what sets can be made of, and imports nothing yet.
func readBases(ctx context.Context, cfg Config, log *slog.Logger) ([]ipxebuild.Bundle, error) {
	if cfg.Artifacts.Bases == nil {
		return artifact.DefaultBases(ctx, "/", log), nil
	}
	bundles, err := artifact.ReadBases(cfg.Artifacts.Bases)
	if err != nil {
		return nil, fmt.Errorf("artifacts.bases: %w", err)
	}
	return bundles, nil
}
