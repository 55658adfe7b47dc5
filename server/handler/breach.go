package handler

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// breach says in the user's words where a request differs from the contract:
// which input, what it was and what it must be.
func breach(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge()
	}
	if _, ok := errors.AsType[*routers.RouteError](err); ok { // an id such as "a:run", which the contract's own paths go by
		return backup.Errorf(backup.NotFound, "", "There is no such object: an id holds no colon.")
	}
	e, ok := errors.AsType[*openapi3filter.RequestError](err)
	if !ok {
		return fmt.Errorf("check the request against the contract: %w", err)
	}
	if s, ok := errors.AsType[*openapi3.SchemaError](e.Err); ok {
		return misfit(e.Parameter, innermost(s))
	}
	switch {
	case e.Parameter != nil:
		return badParameter(e.Parameter, e.Err)
	case e.RequestBody == nil:
		return backup.Errorf(backup.Invalid, "", "This takes no body.")
	case errors.Is(e.Err, openapi3filter.ErrInvalidRequired):
		return backup.Errorf(backup.Invalid, "", "A JSON object is needed as the body.")
	case e.Err == nil: // the media type is not in the contract
		return backup.Errorf(backup.Invalid, "Content-Type", "The body must be JSON: send the header Content-Type: application/json.")
	}
	return backup.Errorf(backup.Invalid, "", "The body is not valid JSON: %s.", jsonFault(e.Err))
}

// badParameter says what is wrong with a parameter that is missing or cannot be
// read as what it should be.
func badParameter(p *openapi3.Parameter, err error) *backup.Error {
	if errors.Is(err, openapi3filter.ErrInvalidRequired) {
		return backup.Errorf(backup.Invalid, p.Name, "%s is needed.", p.Name)
	}
	e, ok := errors.AsType[*openapi3filter.ParseError](err)
	if !ok || p.Schema == nil {
		return backup.Errorf(backup.Invalid, p.Name, "%s has the wrong form.", p.Name)
	}
	return backup.Errorf(backup.Invalid, p.Name, "%s must be %s, got %q.", p.Name, typeName(p.Schema.Value), clip(fmt.Sprint(e.Value)))
}

// innermost follows a fault through the alternatives that the contract wraps
// around it.
func innermost(s *openapi3.SchemaError) *openapi3.SchemaError {
	for s.Origin != nil {
		inner, ok := errors.AsType[*openapi3.SchemaError](s.Origin)
		if !ok {
			var many openapi3.MultiError
			if !errors.As(s.Origin, &many) || len(many) == 0 || !errors.As(many[0], &inner) {
				return s
			}
		}
		s = inner
	}
	return s
}

func jsonFault(err error) string {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%s at byte %d", strings.TrimPrefix(s.Error(), "json: "), s.Offset)
	}
	if p, ok := errors.AsType[*openapi3filter.ParseError](err); ok && p.RootCause() != nil {
		return clip(p.RootCause().Error())
	}
	return clip(err.Error())
}

// misfit says how a value differs from its schema.
func misfit(p *openapi3.Parameter, s *openapi3.SchemaError) *backup.Error {
	path := s.JSONPointer()
	if p != nil {
		path = append([]string{p.Name}, path...)
	}
	if name, ok := quoted(s.Reason); ok && s.SchemaField == "properties" {
		field := cmp.Or(strings.Join(append(path, name), "."), `""`)
		return backup.Errorf(backup.Invalid, clip(field), "There is no property %q here. Check its spelling.", clip(name))
	}
	field := strings.Join(path, ".")
	if s.SchemaField == "required" {
		return backup.Errorf(backup.Invalid, clip(field), "%s is needed.", clip(field))
	}
	what := clip(field)
	if what == "" {
		what = "The body"
	}
	return backup.Errorf(backup.Invalid, clip(field), "%s %s%s.", what, rule(s), got(path, s))
}

// quoted is what a reason has in quotes.
func quoted(reason string) (word string, ok bool) {
	_, rest, _ := strings.Cut(reason, `"`)
	if i := strings.LastIndex(rest, `"`); i >= 0 {
		return rest[:i], true
	}
	return "", false
}

// rule says what a value must be.
func rule(s *openapi3.SchemaError) string {
	c := s.Schema
	switch s.SchemaField {
	case "enum":
		return "must be one of " + oneOf(c.Enum)
	case "type":
		return "must be " + typeName(c)
	case "nullable":
		return "must not be null: leave it out instead"
	case "minimum":
		return fmt.Sprintf("must be at least %g", *c.Min)
	case "maximum":
		return fmt.Sprintf("must be at most %g", *c.Max)
	case "minLength":
		return fmt.Sprintf("must have at least %d characters", c.MinLength)
	case "maxLength":
		return fmt.Sprintf("must have at most %d characters", *c.MaxLength)
	case "minItems":
		return fmt.Sprintf("must have at least %d items", c.MinItems)
	case "maxItems":
		return fmt.Sprintf("must have at most %d items", *c.MaxItems)
	case "maxProperties":
		return fmt.Sprintf("must have at most %d entries", *c.MaxProps)
	case "uniqueItems":
		return "must not hold anything twice"
	case "pattern":
		return form(c)
	case "format":
		if c.Format == "date-time" {
			return "must be a time as in 2026-12-01T02:00:00+09:00"
		}
		return "must have the format " + c.Format
	}
	return "does not fit the contract"
}

// form describes a pattern by its example where it has one.
func form(c *openapi3.Schema) string {
	if c.Example != nil {
		return fmt.Sprintf("must have the form of %v", c.Example)
	}
	return "must match " + c.Pattern
}

func oneOf(values []any) string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = fmt.Sprint(v)
	}
	return strings.Join(names, ", ")
}

func typeName(c *openapi3.Schema) string {
	switch {
	case c.Type.Is("integer"):
		return "a whole number"
	case c.Type.Is("object"), c.Type.Is("array"):
		return "an " + c.Type.Slice()[0]
	case c.Type != nil && len(c.Type.Slice()) == 1:
		return "a " + c.Type.Slice()[0]
	}
	return "of another type"
}

// got names the value, unless it may be a secret or is no plain value.
func got(path []string, s *openapi3.SchemaError) string {
	if s.Schema.WriteOnly || len(path) > 0 && path[len(path)-1] == "password" {
		return ""
	}
	switch v := s.Value.(type) {
	case string:
		return fmt.Sprintf(", got %q", clip(v))
	case float64, bool, json.Number:
		return fmt.Sprintf(", got %v", v)
	case []any:
		return fmt.Sprintf(", got %d", len(v))
	}
	return ""
}
