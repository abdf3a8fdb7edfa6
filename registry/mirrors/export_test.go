// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors

// ContainersForTest and ContainerdForTest read one file from memory, for
// fuzzing, and use what they find for a host.
func ContainersForTest(b []byte, name string) error {
	host, _, err := split(name)
	if err != nil {
		return err
	}
	registries, err := parseContainers(b)
	if err != nil {
		return err
	}
	_, err = containersHost(registries, name, host)
	return err
}

func ContainerdForTest(b []byte) error {
	_, err := parseHosts(b)
	return err
}
