"""Data: records, readers, templates, encoding, token trees and the order they are visited in."""
