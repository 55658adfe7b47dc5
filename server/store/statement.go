package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"
)

// prepared is a connector whose connections keep the statements that they have
// prepared: SQLite would parse the same few hundred texts again and again, for
// a third of the time of a short transaction.
type prepared struct{ driver.Connector }

// Connect opens a connection.
func (p prepared) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &preparedConn{sqliteConn: c.(sqliteConn), kept: map[string]*keptStmt{}}, nil
}

// sqliteConn is what a connection of the driver can do.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// keepStatements is how many one connection keeps. Lists of values make texts
// of many lengths: what comes later is not kept.
const keepStatements = 400

type preparedConn struct {
	sqliteConn
	kept map[string]*keptStmt
}

// keptStmt is one prepared statement. database/sql uses a connection from one
// goroutine at a time; a statement whose rows are still open is not used again.
type keptStmt struct {
	driver.Stmt
	busy bool
}

// ExecContext runs a statement.
func (c *preparedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.statement(ctx, query)
	if err != nil || s == nil {
		return orElse(err, func() (driver.Result, error) { return c.sqliteConn.ExecContext(ctx, query, args) })
	}
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

// QueryContext runs a statement that returns rows.
func (c *preparedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.statement(ctx, query)
	if err != nil || s == nil {
		return orElse(err, func() (driver.Rows, error) { return c.sqliteConn.QueryContext(ctx, query, args) })
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	s.busy = true
	return &keptRows{Rows: rows, of: s}, nil
}

func orElse[T any](err error, otherwise func() (T, error)) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return otherwise()
}

// statement returns the kept statement of that text, prepared when it is new;
// nil for one that is not kept.
func (c *preparedConn) statement(ctx context.Context, query string) (*keptStmt, error) {
	if s := c.kept[query]; s != nil {
		if s.busy {
			return nil, nil
		}
		return s, nil
	}
	if len(c.kept) >= keepStatements || !keeps(query) {
		return nil, nil
	}
	stmt, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s := &keptStmt{Stmt: stmt}
	c.kept[query] = s
	return s, nil
}

// keeps says whether the text is one of those that come again.
func keeps(query string) bool {
	verb, _, _ := strings.Cut(query, " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		return true
	}
	return false
}

// Close closes the connection with its statements.
func (c *preparedConn) Close() error {
	var errs []error
	for _, s := range c.kept {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.sqliteConn.Close())...)
}

// keptRows give their statement back.
type keptRows struct {
	driver.Rows
	of *keptStmt
}

// Close ends the reading.
func (r *keptRows) Close() error {
	r.of.busy = false
	return r.Rows.Close()
}
