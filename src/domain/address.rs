//! Addresses that may be gone to on behalf of somebody else.
//!
//! Invariant: what is not certainly an address of the internet is none. Left out: finding addresses
//! of names, and going there.

use std::net::IpAddr;

/// Whether an address may be gone to where the operator named the host: all but those of the link, at
/// which clouds tell machines their secrets, and those that are nobody's.
pub fn is_reachable(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            !(address.is_link_local() || address.is_multicast() || first == 0 || first >= 240)
        }
        IpAddr::V6(address) => {
            let first = address.segments()[0];
            !(address.is_unspecified()
                || address.is_multicast()
                || (0xfe80..0xfec0).contains(&first)
                // Amazon's metadata.
                || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254])
        }
    }
}

/// Whether an address is one of the internet, and not of this machine or its neighbours.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_documentation()
                || a == 0
                || a >= 240
                // Shared between a provider and its customers, protocols, benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b)))
        }
        // Only what is given out to be reached by all, without the parts that hold IPv4 addresses
        // or documentation.
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            (0x2000..0x4000).contains(&first)
                && first != 0x2002
                && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
                && first != 0x3fff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_its_neighbours_are_not_gone_to() {
        for address in ["8.8.8.8", "52.94.1.1", "2600:9000::1", "100.128.0.1", "198.20.0.1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.170",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_the_operator_names_may_be_near_but_is_not_the_clouds_own() {
        for address in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fc00::1", "8.8.8.8"] {
            assert!(is_reachable(address.parse().unwrap()), "{address}");
        }
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
        ] {
            assert!(!is_reachable(address.parse().unwrap()), "{address}");
        }
    }
}
