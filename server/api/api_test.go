package api_test

import (
	"context"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func TestTheContractAndItsExamplesAreValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaPatternValidation()); err != nil {
		t.Fatal(err)
	}
	if doc.Info.Version != api.Version {
		t.Errorf("info.version = %q, want %q", doc.Info.Version, api.Version)
	}
}
