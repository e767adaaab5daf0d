// What a store on a shared database knows about the nodes that use it. An embedded store has no such
// thing: there is one node, and everything is its own.
#pragma once
#include <cstdint>

#include "sluice/store/store.hpp"

namespace sluice::store {

/// Thread-safe.
class Nodes {
 public:
  virtual ~Nodes() = default;
  /// This node's number, leased from the database.
  virtual std::uint16_t node() const = 0;
  /// Whether it is for this node to finish an exchange that stands open: its own, or one of a dead
  /// node that this one has adopted. Of several nodes on one database at most one says so.
  virtual bool ours(ExchangeId exchange) const = 0;
  /// Grows whenever an answer of ours() may have changed.
  virtual std::uint64_t takeovers() const = 0;
  /// How many nodes live, this one among them, as it was last told; 0: it is shut out, or cannot ask.
  virtual std::size_t living() const = 0;
  /// The next living node, in the order of their numbers and round again, adopts the dead `number` instead of
  /// this one: for what this one cannot finish. ours() is false of it at once; nothing of it may be worked on here.
  /// It comes back where there is no other, or none of them keeps it. Nothing where this node has not adopted it.
  virtual void pass_on(std::uint16_t number) = 0;
};

/// Those of a store on a shared database; null for an embedded one.
inline const Nodes* nodes_of(const Store& store) { return dynamic_cast<const Nodes*>(&store); }
inline Nodes* nodes_of(Store& store) { return dynamic_cast<Nodes*>(&store); }

}  // namespace sluice::store
