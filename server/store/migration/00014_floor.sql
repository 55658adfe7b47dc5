-- The least schema that a server must know to use this database. A migration
-- that older servers cannot live with raises it, in its own transaction.
-- +goose Up
CREATE TABLE schema_floor (floor BIGINT NOT NULL);
INSERT INTO schema_floor (floor) VALUES (14);

-- +goose Down
DROP TABLE schema_floor;
