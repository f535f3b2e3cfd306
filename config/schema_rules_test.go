package config

import (
	"maps"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// The shapes that validation leaves to other packages.
const (
	labelShape    = `^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	nameShape     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	durationShape = `^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`
	pathShape     = `^(/|(/([^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+))+)$`
	modeShape     = `^0?([46][0246]|[0246][46])0$`
	addressShape  = `:[0-9]{1,5}$`
	userShape     = `^[!-~]([ -~]*[!-~])?$`
)

type constraint = func(*jsonschema.Schema)

func pattern(shape string) constraint {
	return func(s *jsonschema.Schema) { s.Pattern = shape }
}

func ruled(r rule) constraint {
	return func(s *jsonschema.Schema) { s.Pattern, s.MaxLength = r.shape.String(), &r.most }
}

// optional also lets the empty text pass.
func optional(r rule) constraint {
	return func(s *jsonschema.Schema) {
		ruled(r)(s)
		s.Pattern = "^$|" + s.Pattern
	}
}

// allBut refuses one value besides what c refuses.
func allBut(value any, c constraint) constraint {
	return func(s *jsonschema.Schema) {
		c(s)
		s.Not = &jsonschema.Schema{Const: &value}
	}
}

func enum(values ...string) constraint {
	return func(s *jsonschema.Schema) {
		for _, v := range values {
			s.Enum = append(s.Enum, v)
		}
	}
}

func between(least, most float64) constraint {
	return func(s *jsonschema.Schema) { s.Minimum, s.Maximum = &least, &most }
}

func required(names ...string) constraint {
	return func(s *jsonschema.Schema) { s.Required = names }
}

func uniqueNames(shape string) constraint {
	return func(s *jsonschema.Schema) {
		s.UniqueItems = true
		s.Items.Pattern = shape
	}
}

// constraints are the rules that a schema can express, by key path.
func constraints() map[string]constraint {
	all := map[string]constraint{
		"":                         required("apiVersion", "kind"),
		"apiVersion":               enum(APIVersion),
		"kind":                     enum(Kind),
		"hostDir":                  pattern(strings.Replace(pathShape, "(/|", "(", 1)),
		"identity.clusterID":       optional(clusterIDRule),
		"identity.region":          optional(anyRegionRule),
		"awsCredentials[]":         required("name", "source"),
		"awsCredentials[].name":    pattern(labelShape),
		"awsCredentials[].source":  pattern(pathShape),
		"awsCredentials[].set":     optional(setRule),
		"awsCredentials[].profile": ruled(profileRule),
		"scraper.commonName":       ruled(commonNameRule),
		"scraper.signerName":       pattern(`^[a-z0-9.-]+\.[a-z0-9.-]+/[a-z0-9.-]+$`),
		"scraper.duration":         pattern(durationShape),
		"scraper.renewAfter":       pattern(durationShape),
		"scraper.caFile":           pattern("^$|" + pathShape),
		"leader.leaseDuration":     pattern(durationShape),
	}
	for _, path := range []string{"awsCredentials[].files", "scraper.files"} {
		all[path+".mode"] = pattern(modeShape)
		all[path+".uid"] = between(0, maxID)
		all[path+".gid"] = between(0, maxID)
	}
	maps.Copy(all, pullSecretsConstraints("leader.pullSecrets"))
	maps.Copy(all, clusterStatusConstraints("leader.clusterStatus"))
	maps.Copy(all, targetConstraints("leader.clusterStatus.targets[]"))
	maps.Copy(all, servingConstraints("serving"))
	return all
}

func pullSecretsConstraints(at string) map[string]constraint {
	return map[string]constraint{
		at + ".hostNamespace":           allBut(Namespace, pattern(labelShape)),
		at + ".credentialsSecretPrefix": pattern(nameShape),
		at + ".patchServiceAccounts":    uniqueNames(nameShape),
		at + ".defaultChainFor":         uniqueNames(chainRule.shape.String()),
		at + ".roles[]":                 required("registry", "roleARN"),
		at + ".roles[].registry":        ruled(registryRule),
		at + ".roles[].roleARN":         ruled(roleARNRule),
		at + ".roles[].externalID":      optional(externalIDRule),
	}
}

func clusterStatusConstraints(at string) map[string]constraint {
	return map[string]constraint{
		at: func(s *jsonschema.Schema) {
			s.If = equals("enabled", true)
			s.If.Required = []string{"enabled"}
			one := 1
			s.Then = &jsonschema.Schema{
				Required: []string{"metric", "targets"},
				Properties: map[string]*jsonschema.Schema{
					"metric":  {Required: []string{"namespace", "name"}},
					"targets": {MinItems: &one},
				},
			}
		},
		at + ".region":                    optional(regionRule),
		at + ".seconds":                   between(1, 86400),
		at + ".metric.namespace":          optional(metricNamespaceRule),
		at + ".metric.name":               optional(metricNameRule),
		at + ".metric.dimensions":         func(s *jsonschema.Schema) { most := maxDimensions; s.MaxItems = &most },
		at + ".metric.dimensions[]":       required("name", "value"),
		at + ".metric.dimensions[].name":  ruled(dimensionNameRule),
		at + ".metric.dimensions[].value": ruled(dimensionValueRule),
		at + ".perTarget.maxMetrics":      between(1, maxData-1),
	}
}

func targetConstraints(at string) map[string]constraint {
	return map[string]constraint{
		at: func(s *jsonschema.Schema) {
			s.Required = []string{"kind", "namespace", "mode"}
			s.OneOf = []*jsonschema.Schema{given("name"), given("selector")}
			s.If = oneOfKinds(kindJob, kindCronJob)
			s.Then = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"mode": modeEnum(kindJob)}}
			s.Else = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"mode": modeEnum("Deployment")}}
			s.AllOf = []*jsonschema.Schema{
				needs(equals("mode", string(AtLeast)), "count"),
				needs(equals("mode", string(Percentage)), "percentage"),
				needs(equals("kind", kindCronJob), "within"),
				needs(equals("allowEmpty", true), "selector"),
			}
			s.AllOf[3].If.Required = []string{"allowEmpty"}
		},
		at + ".kind":       enum(Kinds()...),
		at + ".mode":       enum(append(Modes("Deployment"), Modes(kindJob)...)...),
		at + ".namespace":  pattern(labelShape),
		at + ".name":       pattern("^$|" + nameShape),
		at + ".count":      between(0, 100_000),
		at + ".percentage": between(0, 100),
		at + ".within":     pattern(durationShape),
	}
}

func servingConstraints(at string) map[string]constraint {
	return map[string]constraint{
		at + ".address":           pattern("^$|" + addressShape),
		at + ".healthAddress":     pattern(addressShape),
		at + ".tlsCertFile":       pattern("^$|" + pathShape),
		at + ".tlsPrivateKeyFile": pattern("^$|" + pathShape),
		at + ".clientCAFile":      pattern("^$|" + pathShape),
		at + ".allowedUsers":      uniqueNames(userShape),
		at + ".allowedGroups":     uniqueNames(userShape),
	}
}

func equals(name string, value any) *jsonschema.Schema {
	return &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{name: {Const: &value}}}
}

func oneOfKinds(values ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	enum(values...)(s)
	return &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"kind": s}}
}

func modeEnum(kind string) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	enum(Modes(kind)...)(s)
	return s
}

// given is a key that is there and not empty.
func given(name string) *jsonschema.Schema {
	one := 1
	return &jsonschema.Schema{Required: []string{name}, Properties: map[string]*jsonschema.Schema{name: {MinLength: &one}}}
}

func needs(condition *jsonschema.Schema, name string) *jsonschema.Schema {
	return &jsonschema.Schema{If: condition, Then: &jsonschema.Schema{Required: []string{name}}}
}
