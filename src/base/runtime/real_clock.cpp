// Operating-system time and randomness.
#include <sys/random.h>

#include <array>
#include <bit>
#include <cerrno>
#include <ctime>

#include "sluice/base/failure.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

timespec read_clock(clockid_t id) noexcept {
  timespec at{};
  clock_gettime(id, &at);
  return at;
}

// xoshiro256++ (Blackman and Vigna, 2019): 32 bytes of state, no multiplication, passes BigCrush.
class Xoshiro {
 public:
  explicit Xoshiro(Random& seeder) noexcept {
    seeder.secret(reinterpret_cast<std::byte*>(state_.data()), sizeof state_);
    state_[0] |= 1;  // the all-zero state is the only bad one
  }
  std::uint64_t next() noexcept {
    const std::uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

 private:
  std::array<std::uint64_t, 4> state_;
};

}  // namespace

Instant RealClock::now() noexcept {
  const timespec at = read_clock(CLOCK_MONOTONIC);
  return Instant(seconds(at.tv_sec) + Duration(at.tv_nsec));
}

WallTime RealClock::wall() noexcept {
  const timespec at = read_clock(CLOCK_REALTIME);
  return WallTime(milliseconds(at.tv_sec * 1000 + at.tv_nsec / 1'000'000));
}

WallTime RealClock::coarse_wall() noexcept {
  const timespec at = read_clock(CLOCK_REALTIME_COARSE);
  return WallTime(milliseconds(at.tv_sec * 1000 + at.tv_nsec / 1'000'000));
}

std::uint64_t RealRandom::next() noexcept {
  thread_local Xoshiro generator(*this);
  return generator.next();
}

void RealRandom::secret(std::byte* out, std::size_t size) noexcept {
  while (size > 0) {
    const ssize_t got = getrandom(out, size, 0);
    if (got < 0 && errno == EINTR) continue;
    SLUICE_ASSERT(got > 0, "the operating system gives no random bytes (getrandom failed)");
    out += got;
    size -= static_cast<std::size_t>(got);
  }
}

}  // namespace sluice
