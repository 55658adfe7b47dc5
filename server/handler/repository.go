package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// repositoryOut leaves the password out: it is never told.
func (h *handler) repositoryOut(ctx context.Context, tx backup.Tx, r backup.RepositoryRecord) (api.Repository, error) {
	u, err := tx.Upkeep(ctx, r.ID)
	if err != nil {
		return api.Repository{}, err
	}
	copied, err := backup.FindCopiedDatabase(ctx, tx, r)
	if err != nil {
		return api.Repository{}, err
	}
	out := api.Repository{
		ID: r.ID, Name: r.Name, Kind: r.Kind, Settings: r.PublicSettings(), Compression: r.Compression, VerifyDays: r.VerifyDays, Default: r.Default,
		ImageCount: r.ImageCount, StoredBytes: r.StoredBytes, ReadOnly: r.ReadOnly, OwnedBy: r.OwnedBy,
		CheckedAt: utc(r.CheckedAt), CheckError: r.CheckError, CreatedAt: utc(r.CreatedAt),
		RecoverySheetAt: utc(r.SheetAt), DatabaseCopiedAt: utc(copied.At), Warnings: h.Planner.RepositoryWarnings(r, u),
	}
	if l := u.Locked; !l.At.IsZero() && r.StorageLock().Locks() {
		out.StorageLock = api.StorageLock{ExtendedAt: utc(l.At), LockedUntil: utc(l.Until), Blobs: l.Blobs, Bytes: l.Bytes, Requests: l.Calls, Seconds: l.Seconds}
	}
	for _, w := range []string{u.LockWarning(r, h.Now()), copied.Warning(h.Now())} {
		if w != "" {
			out.Warnings = append(out.Warnings, w)
		}
	}
	if r.FreeBytes >= 0 && !r.CheckedAt.IsZero() {
		out.FreeBytes = &r.FreeBytes
	}
	return out, nil
}

// names are the names of objects by their ids.
type names map[string]string

// of is the name, or the id of what has none any more.
func (n names) of(id string) string {
	if name, ok := n[id]; ok {
		return name
	}
	return id
}

func repositoryNames(ctx context.Context, tx backup.RepositoryTx) (names, error) {
	all := names{}
	for cursor := ""; ; {
		found, next, err := tx.Repositories(ctx, backup.Page{Limit: 1000, Cursor: cursor})
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			all[r.ID] = r.Name
		}
		if next == "" {
			return all, nil
		}
		cursor = next
	}
}

// ListRepositories implements the operation.
func (h *handler) ListRepositories(ctx context.Context, q api.ListRepositoriesRequestObject) (api.ListRepositoriesResponseObject, error) {
	var list api.RepositoryList
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		var found []backup.RepositoryRecord
		if q.Params.Name != "" {
			found, err = one(tx.RepositoryByName(ctx, q.Params.Name))
		} else {
			found, list.NextCursor, err = tx.Repositories(ctx, pageOf(q.Params.Limit, q.Params.Cursor))
		}
		if err != nil {
			return err
		}
		list.Items = make([]api.Repository, len(found))
		for n, r := range found {
			if list.Items[n], err = h.repositoryOut(ctx, tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	return api.ListRepositories200JSONResponse(list), err
}

// GetRepository implements the operation.
func (h *handler) GetRepository(ctx context.Context, q api.GetRepositoryRequestObject) (api.GetRepositoryResponseObject, error) {
	var out api.RepositoryOKJSONResponse
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		r, err := tx.Repository(ctx, q.ID)
		if err != nil {
			return err
		}
		out.Headers = api.RepositoryOKResponseHeaders{ETag: etag(r.Version)}
		out.Body, err = h.repositoryOut(ctx, tx, r)
		return err
	})
	return api.GetRepository200JSONResponse{RepositoryOKJSONResponse: out}, err
}

// repositoryOK is the answer of an operation that has changed r, or not: err.
func (h *handler) repositoryOK(ctx context.Context, r backup.RepositoryRecord, err error) (api.RepositoryOKJSONResponse, error) {
	out := api.RepositoryOKJSONResponse{Headers: api.RepositoryOKResponseHeaders{ETag: etag(r.Version)}}
	if err != nil {
		return out, err
	}
	return out, h.Store.View(ctx, func(tx backup.Tx) (err error) {
		out.Body, err = h.repositoryOut(ctx, tx, r)
		return err
	})
}

// CreateRepository implements the operation.
func (h *handler) CreateRepository(ctx context.Context, q api.CreateRepositoryRequestObject) (api.CreateRepositoryResponseObject, error) {
	b := q.Body
	r := backup.RepositoryRecord{
		Name: b.Name, Kind: b.Kind, Settings: b.Settings, Password: backup.Secret(b.Password),
		Compression: b.Compression, VerifyDays: b.VerifyDays, ReadOnly: b.ReadOnly,
	}
	r.Project = backup.DefaultProject
	r, err := h.Planner.CreateRepository(ctx, r)
	out, err := h.repositoryOK(ctx, r, err)
	if err != nil {
		return nil, err
	}
	return api.CreateRepository201JSONResponse{RepositoryCreatedJSONResponse: api.RepositoryCreatedJSONResponse{
		Body: out.Body, Headers: api.RepositoryCreatedResponseHeaders{ETag: etag(r.Version), Location: "/v1/repositories/" + r.ID},
	}}, nil
}

// CopyDatabase implements the operation.
func (h *handler) CopyDatabase(ctx context.Context, q api.CopyDatabaseRequestObject) (api.CopyDatabaseResponseObject, error) {
	r, err := h.Planner.CopyDatabase(ctx, q.ID)
	out, err := h.repositoryOK(ctx, r, err)
	return api.CopyDatabase200JSONResponse{RepositoryOKJSONResponse: out}, err
}

// TakeOverRepository implements the operation.
func (h *handler) TakeOverRepository(ctx context.Context, q api.TakeOverRepositoryRequestObject) (api.TakeOverRepositoryResponseObject, error) {
	r, err := h.Planner.TakeOverRepository(ctx, q.ID)
	out, err := h.repositoryOK(ctx, r, err)
	return api.TakeOverRepository200JSONResponse{RepositoryOKJSONResponse: out}, err
}

// UpdateRepository implements the operation.
func (h *handler) UpdateRepository(ctx context.Context, q api.UpdateRepositoryRequestObject) (api.UpdateRepositoryResponseObject, error) {
	b := q.Body
	r, err := h.Planner.UpdateRepository(ctx, q.ID, versionOf(q.Params.IfMatch), backup.RepositoryChange{
		Name: b.Name, Kind: b.Kind, Settings: b.Settings, Compression: b.Compression, VerifyDays: b.VerifyDays, Default: b.Default, ReadOnly: b.ReadOnly,
	})
	out, err := h.repositoryOK(ctx, r, err)
	return api.UpdateRepository200JSONResponse{RepositoryOKJSONResponse: out}, err
}

// DeleteRepository implements the operation.
func (h *handler) DeleteRepository(ctx context.Context, q api.DeleteRepositoryRequestObject) (api.DeleteRepositoryResponseObject, error) {
	return api.DeleteRepository204Response{}, h.Planner.DeleteRepository(ctx, q.ID, q.Params.ForgetImages)
}

// ChangeRepositoryPassword implements the operation. The password is told to nobody.
func (h *handler) ChangeRepositoryPassword(ctx context.Context, q api.ChangeRepositoryPasswordRequestObject) (api.ChangeRepositoryPasswordResponseObject, error) {
	r, err := h.Planner.ChangeRepositoryPassword(ctx, q.ID)
	out, err := h.repositoryOK(ctx, r, err)
	if err == nil {
		h.Log.WarnContext(ctx, "password of a repository changed", "repository", q.ID)
	}
	return api.ChangeRepositoryPassword200JSONResponse{RepositoryOKJSONResponse: out}, err
}

// RecoverySheet implements the operation. That it was asked for is logged; what
// it says is not.
func (h *handler) RecoverySheet(ctx context.Context, q api.RecoverySheetRequestObject) (api.RecoverySheetResponseObject, error) {
	text, err := h.Planner.RecoverySheet(ctx, q.ID, q.Body.AgeRecipient)
	if err != nil {
		return nil, err
	}
	h.Log.WarnContext(ctx, "recovery sheet given out", "repository", q.ID, "encrypted", q.Body.AgeRecipient != "")
	return api.RecoverySheet200JSONResponse{Text: text.Reveal()}, nil
}

// RebuildCatalogue implements the operation.
func (h *handler) RebuildCatalogue(ctx context.Context, q api.RebuildCatalogueRequestObject) (api.RebuildCatalogueResponseObject, error) {
	j, err := h.Planner.RebuildCatalogue(ctx, q.ID, q.Params.Prune)
	return api.RebuildCatalogue202JSONResponse{JobAcceptedJSONResponse: jobAccepted(j)}, err
}
