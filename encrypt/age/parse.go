// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package age

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
	"golang.org/x/crypto/ssh"
)

const (
	defaultTimeout = time.Minute
	maxTimeout     = 2 * time.Minute
	// maxFile bounds a file of identities.
	maxFile = 1 << 20
)

func newKey(public, program string, o *Options) key {
	k := key{public: public, plugin: program, timeout: defaultTimeout, ui: &plugin.ClientUI{}, running: make(chan struct{}, maxRunning)}
	if o != nil && o.Timeout > 0 {
		k.timeout = min(o.Timeout, maxTimeout)
	}
	if o != nil && o.UI != nil {
		k.ui = o.UI
	}
	return k
}

// ParseRecipient returns the recipient that s names: age1… of age itself, of a
// hardware token (age1tag1…, age1tagpq1…) or of a plugin, or the line of an SSH
// public key, ssh-ed25519 or ssh-rsa. A plugin is run once, to learn whether it
// wraps post-quantum; ctx bounds that.
func ParseRecipient(ctx context.Context, s string, o *Options) (*Recipient, error) {
	if err := approved(); err != nil {
		return nil, err
	}
	r, err := parseRecipient(strings.TrimSpace(s), o)
	if err != nil {
		return nil, fmt.Errorf("age: recipient %.80q: %w", s, err)
	}
	if err := r.probe(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

func parseRecipient(s string, o *Options) (*Recipient, error) {
	r := &Recipient{key: newKey(s, "", o)}
	var err error
	switch {
	case strings.HasPrefix(s, "age1pq1"):
		r.inner, err = age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1tag1"), strings.HasPrefix(s, "age1tagpq1"):
		r.inner, err = tag.ParseRecipient(s)
	case strings.HasPrefix(s, "age1") && strings.Count(s, "1") > 1:
		if r.plugin, _, err = plugin.ParseRecipient(s); err == nil {
			r.inner, err = plugin.NewRecipient(s, r.ui)
		}
	case strings.HasPrefix(s, "age1"):
		r.inner, err = age.ParseX25519Recipient(s)
	case strings.HasPrefix(s, "ssh-"):
		var public ssh.PublicKey
		if public, _, _, _, err = ssh.ParseAuthorizedKey([]byte(s)); err == nil {
			r.public = authorizedKey(public)
			r.inner, err = agessh.ParseRecipient(r.public)
		}
	default:
		err = errors.New("want age1…, ssh-ed25519 or ssh-rsa")
	}
	return r, err
}

// authorizedKey is the line of an SSH key without options and comment.
func authorizedKey(k ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

// ParseIdentity returns the one identity in the text of a file: an identity of
// age, of a plugin, or an SSH private key without a passphrase. Blank lines and
// lines that begin with # are left out, as age does, but for one: the identity of
// a plugin does not tell its recipient, so the line before it must, as the
// programs write it:
//
//	# public key: age1yubikey1…
//	#  Recipient: age1yubikey1…
//
// ParseIdentity does no I/O.
func ParseIdentity(text string, o *Options) (*Identity, error) {
	if err := approved(); err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("age: a file of identities with %d bytes, limit %d", len(text), maxFile)
	}
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN") {
		return parseSSH(text, o)
	}
	var found *Identity
	var said string // the recipient in a comment
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "#") {
			if m := comment.FindStringSubmatch(line); m != nil {
				said = m[1]
			}
			continue
		}
		if line == "" {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("age: line %d: a second identity; one file names one key", n)
		}
		var err error
		if found, err = parseIdentity(line, said, o); err != nil {
			return nil, fmt.Errorf("age: line %d: %w", n, err) // age's errors do not quote identities
		}
	}
	if err := lines.Err(); err != nil && err != io.EOF {
		return nil, fmt.Errorf("age: %w", err)
	}
	if found == nil {
		return nil, errors.New("age: no identity")
	}
	return found, nil
}

var comment = regexp.MustCompile(`(?i)^#\s*(?:public key|recipient):\s*(age1[0-9a-z]+)\s*$`)

func parseIdentity(line, said string, o *Options) (*Identity, error) {
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
		i, err := age.ParseHybridIdentity(line)
		if err != nil {
			return nil, errors.New("malformed post-quantum identity")
		}
		return &Identity{newKey(i.Recipient().String(), "", o), i}, nil
	case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
		i, err := age.ParseX25519Identity(line)
		if err != nil {
			return nil, errors.New("malformed X25519 identity")
		}
		return &Identity{newKey(i.Recipient().String(), "", o), i}, nil
	case strings.HasPrefix(line, "AGE-PLUGIN-"):
		if said == "" {
			return nil, errors.New("the identity of a plugin, without a comment that says its recipient: # public key: age1…")
		}
		if _, err := parseRecipient(said, o); err != nil {
			return nil, fmt.Errorf("the recipient in the comment: %w", err)
		}
		k := newKey(said, "", o)
		i, err := plugin.NewIdentity(line, k.ui)
		if err != nil {
			return nil, errors.New("malformed identity of a plugin")
		}
		k.plugin = i.Name()
		return &Identity{k, i}, nil
	}
	return nil, errors.New("want AGE-SECRET-KEY-1…, AGE-SECRET-KEY-PQ-1… or AGE-PLUGIN-…")
}

func parseSSH(text string, o *Options) (*Identity, error) {
	signer, err := ssh.ParsePrivateKey([]byte(text))
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, errors.New("age: an SSH key under a passphrase; ssh-keygen -p takes it off a copy")
	} else if err != nil {
		return nil, errors.New("age: malformed SSH private key")
	}
	i, err := agessh.ParseIdentity([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("age: SSH key of type %s; want ssh-ed25519 or ssh-rsa", signer.PublicKey().Type())
	}
	return &Identity{newKey(authorizedKey(signer.PublicKey()), "", o), i}, nil
}

// Recipient returns the recipient that the identity opens for. For the identity
// of a plugin its program is run, as by [ParseRecipient].
func (i *Identity) Recipient(ctx context.Context) (*Recipient, error) {
	return ParseRecipient(ctx, i.public, &Options{UI: i.ui, Timeout: i.timeout})
}
