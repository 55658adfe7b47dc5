package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// noun is a table and the word that users know its rows by.
type noun struct{ table, word string }

func (n noun) missing(id string) error {
	return backup.Errorf(backup.NotFound, "", "There is no %s with id %q.", n.word, id)
}

func (n noun) missingName(name string) error {
	return backup.Errorf(backup.NotFound, "", "There is no %s named %q.", n.word, name)
}

func (n noun) exists(name string) error {
	return backup.Errorf(backup.Conflict, "name", "There is a %s named %q already. Choose another name, or change or import that one.", n.word, name)
}

// get reads the project's row with the id.
func get[T any](ctx context.Context, t *tx, n noun, id string, of func(*T) columns) (T, error) {
	return first(ctx, t, n, "project = $1 AND id = $2", []any{t.project, id}, n.missing(id), of)
}

// getByName reads the project's row with the name.
func getByName[T any](ctx context.Context, t *tx, n noun, name string, of func(*T) columns) (T, error) {
	return first(ctx, t, n, "project = $1 AND name = $2", []any{t.project, name}, n.missingName(name), of)
}

// first reads the first row that fulfils the condition; there being none is missing.
func first[T any](ctx context.Context, t *tx, n noun, cond string, args []any, missing error, of func(*T) columns) (T, error) {
	var v T
	c := of(&v)
	found, err := t.row(ctx, "SELECT "+c.names("")+" FROM "+n.table+" WHERE "+cond, args, c.dest()...)
	switch {
	case err != nil:
		var none T
		return none, fmt.Errorf("%s: %w", n.word, err)
	case !found:
		return v, missing
	}
	return v, nil
}

// insert stores a row. taken is the error for a row that is there already.
func (t *tx) insert(ctx context.Context, n noun, c columns, taken error) error {
	done, err := t.exec(ctx, "INSERT INTO "+n.table+" ("+c.names("")+") VALUES ("+c.marks(1)+") ON CONFLICT DO NOTHING", c.dest()...)
	if err != nil {
		return fmt.Errorf("insert %s: %w", n.word, err)
	}
	if done == 0 {
		return taken
	}
	return nil
}

// begin fills in what a new object gets from the store.
func (t *tx) begin(m *backup.Meta) {
	if m.ID == "" {
		m.ID = backup.NewID(t.now)
	}
	m.Project, m.Version, m.CreatedAt, m.UpdatedAt = t.project, 1, t.now, t.now
}

// update stores a changed object, if m.Version is the stored one, and counts
// the version up.
func (t *tx) update(ctx context.Context, n noun, c columns, m *backup.Meta, name string) error {
	before := *m
	m.Version, m.UpdatedAt = m.Version+1, t.now
	c = c.without("id", "project", "created_at")
	k := len(c)
	text := fmt.Sprintf("UPDATE %s SET %s WHERE project = $%d AND id = $%d AND version = $%d", n.table, c.sets(1), k+1, k+2, k+3)
	done, err := t.exec(ctx, text, append(c.dest(), t.project, m.ID, before.Version)...)
	if err == nil && done == 1 {
		return nil
	}
	m.Version, m.UpdatedAt = before.Version, before.UpdatedAt
	if t.db.dialect.taken(err) {
		return n.exists(name)
	}
	if err != nil {
		return fmt.Errorf("update %s %s: %w", n.word, m.ID, err)
	}
	var stored int64
	found, err := t.row(ctx, "SELECT version FROM "+n.table+" WHERE project = $1 AND id = $2", []any{t.project, m.ID}, &stored)
	switch {
	case err != nil:
		return fmt.Errorf("version of %s %s: %w", n.word, m.ID, err)
	case !found:
		return n.missing(m.ID)
	}
	return backup.Errorf(backup.Stale, "", "The %s %q was changed meanwhile: version %d is stored, the change was made to version %d. Read it again and repeat the change.", n.word, name, stored, before.Version)
}

// change stores an object that has no version.
func (t *tx) change(ctx context.Context, n noun, c columns, id string) error {
	k := len(c)
	done, err := t.exec(ctx, fmt.Sprintf("UPDATE %s SET %s WHERE project = $%d AND id = $%d", n.table, c.sets(1), k+1, k+2), append(c.dest(), t.project, id)...)
	if err != nil {
		return fmt.Errorf("update %s %s: %w", n.word, id, err)
	}
	if done == 0 {
		return n.missing(id)
	}
	return nil
}

// remove deletes the project's row with the id.
func (t *tx) remove(ctx context.Context, n noun, id string) error {
	done, err := t.exec(ctx, "DELETE FROM "+n.table+" WHERE project = $1 AND id = $2", t.project, id)
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", n.word, id, err)
	}
	if done == 0 {
		return n.missing(id)
	}
	return nil
}

// perStatement is how many values one statement names at most. SQLite looks
// each of them up by its name, so the cost grows with their square.
const perStatement = 400

// insertMany stores rows that have the same columns.
func (t *tx) insertMany(ctx context.Context, n noun, rows []columns) error {
	for len(rows) > 0 {
		part := rows[:min(len(rows), perStatement/len(rows[0]))]
		rows = rows[len(part):]
		var marks []string
		var args []any
		for _, c := range part {
			marks = append(marks, "("+c.marks(len(args)+1)+")")
			args = append(args, c.dest()...)
		}
		if _, err := t.exec(ctx, "INSERT INTO "+n.table+" ("+part[0].names("")+") VALUES "+strings.Join(marks, ", "), args...); err != nil {
			return fmt.Errorf("insert %d of %s: %w", len(part), n.table, err)
		}
	}
	return nil
}
