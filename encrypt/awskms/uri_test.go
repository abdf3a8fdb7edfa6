// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskms_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/modelsec/modelsec-go/encrypt/awskms"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

var uris = []struct{ uri, want string }{
	{"awskms:///" + keyARN, ""},
	{"awskms:///" + primary, ""},
	{"awskms:///arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", ""},
	{"awskms:///" + keyARN + "?endpoint=https://vpce-1.kms.eu-central-1.vpce.amazonaws.com", ""},
	{"awskms:///" + keyARN + "?endpoint=http://127.0.0.1:4566", ""},
	{"awskms:///" + keyARN + "?endpoint=http://[::1]:4566", ""},

	{"", "does not begin with awskms:///"},
	{"awskms:", "does not begin with awskms:///"},
	{"awskms://localhost/" + keyARN, "does not begin with awskms:///"},
	{"awskms:///", "not the ARN of a key"},
	{"awskms:///alias/models", "an alias may be moved"},
	{"awskms:///arn:aws:kms:eu-central-1:111122223333:alias/models", "an alias may be moved"},
	{"awskms:///1234abcd-12ab-34cd-56ef-1234567890ab", "not the ARN of a key"},
	{"awskms:///" + keyARN + "/", "not the ARN of a key"},
	{"awskms:///" + strings.ToUpper(keyARN), "not the ARN of a key"},
	{"awskms:///" + keyARN + "?", "endpoint"},
	{"awskms:///" + keyARN + "?region=us-east-1", "known is endpoint"},
	{"awskms:///" + keyARN + "?endpoint=https://a&endpoint=https://b", "known is endpoint, once"},
	{"awskms:///" + keyARN + "?endpoint=http://kms.example.com", "without TLS"},
	{"awskms:///" + keyARN + "?endpoint=http://localhost", "without TLS"},
	{"awskms:///" + keyARN + "?endpoint=https://user:password@kms.example.com", "want https://HOST"},
	{"awskms:///" + keyARN + "?endpoint=file:///etc/passwd", "want https://HOST"},
	{"awskms:///" + keyARN + "?endpoint=%zz", "invalid URL escape"},
}

func TestURI(t *testing.T) {
	for _, test := range uris {
		k, err := awskms.New(t.Context(), test.uri, &awskms.Options{Config: &aws.Config{}})
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.uri, err)
		case test.want == "" && k.String() != test.uri:
			t.Errorf("%s reads back as %s", test.uri, k)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want %q in it", test.uri, err, test.want)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, test := range uris {
		f.Add(test.uri)
	}
	_, b := encrypttest.NewBinding(f)
	f.Fuzz(func(t *testing.T, uri string) {
		k, err := awskms.New(t.Context(), uri, &awskms.Options{Config: &aws.Config{}})
		if err == nil && len(k.KeyID(b)) != 32 {
			t.Errorf("key id %q", k.KeyID(b))
		}
	})
}

// TestKeyIDsAreStable: whoever changes what they are made from locks out every
// reader of what was published before.
func TestKeyIDsAreStable(t *testing.T) {
	_, b := encrypttest.NewBinding(t)
	for uri, name := range map[string]string{
		"awskms:///" + keyARN: keyARN,
		"awskms:///" + keyARN + "?endpoint=https://kms.example.com": keyARN,
		"awskms:///" + primary: "arn:aws:kms::111122223333:key/" + mrk,
		"awskms:///" + replica: "arn:aws:kms::111122223333:key/" + mrk,
	} {
		k, err := awskms.New(t.Context(), uri, &awskms.Options{Config: &aws.Config{}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := k.KeyID(b), b.KeyID("aws-kms", []byte(name)); got != want {
			t.Errorf("%s: key id %s, want that of %s", uri, got, name)
		}
	}
}
