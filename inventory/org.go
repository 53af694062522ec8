package inventory

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/nestboot/nestboot/store"
)

const orgKey = "organization"

// Organization is the UUID of this installation's one organization, made on
// the first start. API paths carry it.
func Organization(ctx context.Context, s *store.Store) (string, error) {
	e, err := s.Get(ctx, orgKey)
	if err == nil {
		return string(e.Value), nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("read organization: %w", err)
	}
	id := uuid.NewString()
	if _, err := s.Put(ctx, orgKey, []byte(id)); err != nil {
		return "", fmt.Errorf("make organization: %w", err)
	}
	return id, nil
}
