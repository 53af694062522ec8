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
	_, err := s.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(orgKey, 0)},
		Then: []store.Op{store.Set(orgKey, []byte(uuid.NewString()))},
	})
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return "", fmt.Errorf("make organization: %w", err)
	}
	e, err := s.Get(ctx, orgKey)
	if err != nil {
		return "", fmt.Errorf("read organization: %w", err)
	}
	return string(e.Value), nil
}
