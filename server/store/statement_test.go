package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// TestAStatementWhoseRowsAreOpenIsNotUsedAgain: kept statements give the same
// answers as new ones, also within each other and after the table has changed.
func TestAStatementWhoseRowsAreOpenIsNotUsedAgain(t *testing.T) {
	ctx := context.Background()
	db, err := openPrepared(sqliteDSN(filepath.Join(t.TempDir(), "x.db"), "immediate"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range []string{"CREATE TABLE n (v BIGINT)", "INSERT INTO n VALUES (1)", "INSERT INTO n VALUES (2)", "INSERT INTO n VALUES (3)"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	const query = "SELECT v FROM n WHERE v >= $1 ORDER BY v"
	read := func(from int) (got []int) {
		rows, err := tx.QueryContext(ctx, query, from)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var v, least int
			if err := rows.Scan(&v); err != nil {
				t.Fatal(err)
			}
			if err := tx.QueryRowContext(ctx, query, v).Scan(&least); err != nil || least != v {
				t.Errorf("within the rows: %d, %v; want %d", least, err, v)
			}
			got = append(got, v)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for range 3 {
		if got := fmt.Sprint(read(2)); got != "[2 3]" {
			t.Errorf("read %s, want [2 3]", got)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "ALTER TABLE n ADD COLUMN w BIGINT"); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(ctx, query, 3).Scan(new(int)); err != nil {
		t.Errorf("after a change of the table: %v", err)
	}
	if _, err := db.ExecContext(ctx, "INSERT INTO nowhere VALUES (1)"); err == nil {
		t.Error("a wrong statement was taken")
	}
}

// TestKeptStatementsAreEachConnectionsOwn reads with many connections at once.
func TestKeptStatementsAreEachConnectionsOwn(t *testing.T) {
	ctx := context.Background()
	db, err := openPrepared(sqliteDSN(filepath.Join(t.TempDir(), "x.db"), "deferred", "journal_mode(WAL)"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE n (v BIGINT)"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 50 {
				var got int
				if err := db.QueryRowContext(ctx, "SELECT $1 + COUNT(*) FROM n", i*100+k).Scan(&got); err != nil || got != i*100+k {
					t.Errorf("got %d, %v; want %d", got, err, i*100+k)
				}
			}
		})
	}
	all.Wait()
}
