// Whether an exchange is in doubt, asked without holding up the lane that wants to know: the database
// may be gone, and that its key runs is true in any case.
#include <memory>

#include "sluice/flow/recovery.hpp"

namespace sluice::flow {
namespace {

class Question final : public store::PendingQuery {
 public:
  Question(ExchangeId exchange, Lane& on, void (*told)(void*, bool) noexcept, void* owner)
      : exchange_(exchange), told_(told), owner_(owner) {
    store::ListOpen wanted;
    wanted.after = ExchangeId{exchange.value - 1};
    wanted.limit = 1;
    query = wanted;
    lane = &on;
    run = [](Job* job) noexcept { answered(std::unique_ptr<Question>(static_cast<Question*>(static_cast<store::PendingQuery*>(job)))); };
  }
  static void ask(std::unique_ptr<Question> self, store::Store& store, Duration most) {
    // On this lane, so nothing of it happens before we return.
    self->patience_.arm(*self->lane, self->lane->clock().now() + most, [](void* q) noexcept { static_cast<Question*>(q)->tell(false); }, self.get());
    if (store.ask(*self)) return answered(std::move(self));
    (void)self.release();  // run() takes it back, however late
  }

 private:
  static void answered(std::unique_ptr<Question> self) noexcept {
    self->patience_.cancel();
    bool doubtful = false;
    if (self->answer)
      if (const auto* rows = std::get_if<store::ListOpen::Answer>(&*self->answer); rows != nullptr && !rows->empty())
        doubtful = rows->front().exchange == self->exchange_ && rows->front().state == store::OpenState::in_doubt;
    self->tell(doubtful);
  }
  void tell(bool doubtful) noexcept {
    if (const auto told = std::exchange(told_, nullptr)) told(owner_, doubtful);
  }

  ExchangeId exchange_;
  void (*told_)(void*, bool) noexcept;
  void* owner_;
  Timer patience_;
};

}  // namespace

void ask_in_doubt(store::Store& store, ExchangeId exchange, Lane* lane, Duration most,
                  void (*told)(void* owner, bool doubtful) noexcept, void* owner) {
  if (lane == nullptr) return told(owner, in_doubt(store, exchange));
  Question::ask(std::make_unique<Question>(exchange, *lane, told, owner), store, most);
}

}  // namespace sluice::flow
